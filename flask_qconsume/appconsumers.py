"""What belongs to one app: its settings, its consumers, its broker.

The extension makes one of these for each app, and the worker runs it. Knows no gevent.
"""

from __future__ import annotations

import contextlib
import threading
import typing as t
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator

from flask import Flask

from .broker.base import Broker
from .broker.checks import make_no_consumer_error
from .broker.circuit_breaker import CircuitBreaker
from .broker.compose import compose
from .broker.topology import Topology
from .broker.topology import plan_topology
from .broker.urls import check_url
from .broker.urls import open_broker
from .errors import ConfigurationError
from .errors import PublishError
from .errors import QConsumeError
from .first_use import PerProcess
from .first_use import fork_safe_property
from .formats.table import Formats
from .handling import signals
from .message import Outgoing
from .registration.consumer import Consumer
from .registration.registry import Registry
from .settings import Settings
from .text import escape

#: Its name in ``app.extensions``.
KEY = "qconsume"

#: What ``publish_many`` takes for one message.
Publishable = tuple[str, t.Any] | tuple[str, t.Any, t.Mapping[str, t.Any]]


class AppConsumers:
    """The consumers, settings and broker of one app: ``app.extensions["qconsume"]``."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        check_url(settings.broker_url)
        #: The configuration, checked.
        self.settings = settings
        self.registry = Registry.of(app)
        self._sender = app
        self._circuit = CircuitBreaker(settings.away_after)
        self._broker = PerProcess(self._open_broker, leave=Broker.abandon_after_fork)
        self._diversion: Callable[[Outgoing], None] | None = None

    @fork_safe_property
    def consumers(self) -> dict[str, Consumer]:
        """The consumers by their full names. Looked up first when all is registered.

        :raises ConfigurationError: if configuration names a consumer or a retry policy
            that does not exist.
        :raises RegistrationError: if two consumers read one queue.
        """
        found = self.registry.resolve(self.settings)
        self.registry.close("the app's consumers are in use already")
        return found

    @fork_safe_property
    def formats(self) -> Formats:
        """The formats of bodies. Looked up first when all is registered."""
        _ = self.consumers  # Closes the registry: what came later would not be known.
        return self.registry.formats(self.settings.max_items)

    @fork_safe_property
    def topology(self) -> Topology:
        """The exchanges, queues and bindings that the consumers need."""
        return plan_topology(self.settings, self.consumers.values())

    @property
    def broker(self) -> Broker:
        """The app's broker in this process; it connects when it is used."""
        return self._broker.get()

    def publish(self, routing_key: str, body: t.Any, **options: t.Any) -> str:
        """Publish a message; return its id once the broker has confirmed it.

        It may be called in any thread or greenlet, with or without an app context.

        :param routing_key: What it is about (``"order.created"``). Every queue that is
            bound for it gets a copy.
        :param body: What a schema's ``dump()`` returns, plain values, or a protobuf
            message; ``bytes`` are sent as they are.
        :param headers: A mapping of texts to plain values: what AMQP can write, on
            every broker.
        :param key: What orders or partitions it, on brokers that know that.
        :param delay: Seconds that the broker holds it back.
        :param expires: Seconds after which it is not handled any more.
        :param priority: 0 to 9, the highest first.
        :param content_type: JSON unless given, or what the body itself is; or
            ``application/msgpack``, ``text/plain``, that of a registered format, or
            anything else with ``bytes``.
        :param mandatory: Whether it is an error if no queue is bound for it (it is,
            unless given: nobody would ever get the message).
        :param exchange: A name, or a kombu ``Exchange``, in place of
            ``QCONSUME_EXCHANGE``; ``""`` is the broker's default one.
        :param id: A message id of your own in place of a new one.
        :raises Unroutable: if it is mandatory and no queue is bound for it.
        :raises BrokerUnavailable: if there is no broker within
            ``QCONSUME_PUBLISH_TIMEOUT``.
        :raises BrokerAway: at once, if nobody has got an answer from the broker for
            ``QCONSUME_AWAY_AFTER``; nothing was sent. It is a ``BrokerUnavailable``.
        :raises PublishTimeout: if the broker did not confirm it within that time.
        :raises UnsupportedByBroker: if this broker cannot do what was asked.
        :raises PublishError: if it cannot be published like that; or if the broker is
            in memory, and no worker has begun in this process (but with ``TESTING``).
        """
        return self.publish_many([(routing_key, body, options)])[0]

    def publish_many(self, messages: Iterable[Publishable]) -> list[str]:
        """Publish messages, pipelined; return their ids once all are confirmed.

        :param messages: ``(routing_key, body)`` or ``(routing_key, body, options)``.
        :raises PublishError: as :meth:`publish`; its ``errors`` are one per message,
            ``None`` for those that were confirmed.
        """
        composed = [self._composed(*message) for message in messages]
        if self._diversion is not None:
            for message in composed:
                self._diversion(message)
            return [t.cast(str, message.id) for message in composed]
        errors = self._publish(composed)
        for message, error in zip(composed, errors, strict=True):
            if error is None:
                signals.send(signals.message_published, self._sender, message=message)
        _raise_first(errors)
        return [t.cast(str, message.id) for message in composed]

    def _open_broker(self) -> Broker:
        return open_broker(self.settings, self.topology)

    def _publish(self, messages: list[Outgoing]) -> list[Exception | None]:
        try:
            broker = self.broker
            if not broker.can_be_consumed and not self._sender.testing:
                return [make_no_consumer_error(broker) for _ in messages]
            timeout = self.settings.publish_timeout
            errors = self._circuit.publish(broker, messages, timeout)
        except RuntimeError as error:
            raise _explained(error) from error
        return [error and _explained(error) for error in errors]

    def _composed(
        self, routing_key: str, body: t.Any, options: t.Mapping[str, t.Any] = {}
    ) -> Outgoing:
        exchange = self.settings.exchange
        return compose(exchange, routing_key, body, self.formats, **options)

    @contextlib.contextmanager
    def diverted(self, take: Callable[[Outgoing], None]) -> Iterator[None]:
        """Give what is published within the block to ``take`` instead of the broker."""
        before, self._diversion = self._diversion, take
        try:
            yield
        finally:
            self._diversion = before

    def close(self) -> None:
        """Close the connections that are open. Publishing again reopens them."""
        if self._broker.made is not None:
            self._broker.made.close()


def _explained(error: Exception) -> Exception:
    """Explain an error of Python's own: mostly that it starts no thread."""
    if isinstance(error, QConsumeError) or not isinstance(error, RuntimeError):
        return error
    text = f"Cannot publish: {escape(error)}."
    if not threading.main_thread().is_alive():
        text += (
            " The interpreter is shutting down, and starts no threads any more."
            " Publish before the main thread ends, not in 'atexit'."
        )
    return PublishError(text)


def _raise_first(errors: list[Exception | None]) -> None:
    failed = [error for error in errors if error is not None]
    if not failed:
        return
    first = failed[0]
    if isinstance(first, PublishError):
        first.errors = errors
    raise first


def consumers_of(app: Flask) -> AppConsumers:
    """``app.extensions["qconsume"]``.

    :raises ConfigurationError: if the extension was not initialised on the app.
    """
    try:
        return t.cast(AppConsumers, app.extensions[KEY])
    except KeyError:
        raise ConfigurationError(
            f"The app '{app.import_name}' has no QConsume: call"
            " 'QConsume().init_app(app)' where the app is made."
        ) from None
