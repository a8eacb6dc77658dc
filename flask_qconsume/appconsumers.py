"""The consumers, settings and broker of one app, and its publishing.

The extension creates an :class:`AppConsumers` for each app, and the worker runs its
consumers. Knows no gevent.
"""

from __future__ import annotations

import contextlib
import threading
import typing as t
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping

from flask import Flask
from flask import current_app

from .broker.base import Broker
from .broker.checks import make_no_consumer_error
from .broker.circuit_breaker import CircuitBreaker
from .broker.compose import PublishOptions
from .broker.compose import check_options
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
from .handling.events import STOPS_AND_LIMITS
from .handling.events import Events
from .handling.events import tell
from .handling.events import tell_end
from .handling.signal_sender import SignalSender
from .message import Outgoing
from .registration.consumer import Consumer
from .registration.consumer import KombuExchange
from .registration.registry import Registry
from .seconds import Duration
from .settings import Settings
from .text import escape

#: The key of an app's :class:`AppConsumers` in ``app.extensions``.
KEY = "qconsume"

#: One message for ``publish_many``.
Publishable = tuple[str, t.Any] | tuple[str, t.Any, PublishOptions]


class PublishMethods:
    """The publishing methods of :class:`.QConsume` and :class:`.AppConsumers`."""

    def publish(
        self,
        routing_key: str,
        body: t.Any,
        *,
        headers: Mapping[str, t.Any] | None = None,
        key: str | None = None,
        delay: Duration | None = None,
        expires: Duration | None = None,
        priority: int | None = None,
        content_type: str | None = None,
        mandatory: bool = True,
        exchange: str | KombuExchange | None = None,
        id: str | None = None,
    ) -> str:
        """Publish a message; return its id once the broker has confirmed it.

        Any thread or greenlet may call this. :class:`.QConsume` publishes for the
        current app, and needs an app context; :class:`.AppConsumers` needs none.

        :param routing_key: The subject of the message (``"order.created"``). Every
            queue that is bound for it gets a copy.
        :param body: The result of a schema's ``dump()``, plain values, or a protobuf
            message; ``bytes`` are sent as they are.
        :param headers: A mapping of strings to values that AMQP can write; the same
            values are allowed on every broker.
        :param key: Orders or partitions messages, on brokers that know keys.
        :param delay: Seconds, or a :class:`~datetime.timedelta`, for which the broker
            holds the message back.
        :param expires: Seconds, or a :class:`~datetime.timedelta`, after which the
            message is dropped instead of handled.
        :param priority: 0 to 9, the highest first.
        :param content_type: ``application/json``, ``application/msgpack``,
            ``text/plain``, or the type of a registered format; any type if the body is
            ``bytes``. By default, the type that belongs to the body's class (such as a
            protobuf message's), or else ``application/json``.
        :param mandatory: If true, raise :exc:`.Unroutable` if no queue is bound for the
            message; if false, the broker discards such a message.
        :param exchange: A name, or a kombu ``Exchange``, in place of
            ``QCONSUME_EXCHANGE``; ``""`` is the broker's default exchange.
        :param id: The message's id; by default, a new one.
        :raises Unroutable: if the message is mandatory and no queue is bound for it.
        :raises BrokerUnavailable: if no broker can be reached within
            ``QCONSUME_PUBLISH_TIMEOUT``.
        :raises BrokerAway: at once, if the broker has not answered any publish of this
            process for ``QCONSUME_AWAY_AFTER``; nothing was sent. It is a
            ``BrokerUnavailable``.
        :raises PublishTimeout: if the broker did not confirm the message within
            ``QCONSUME_PUBLISH_TIMEOUT``.
        :raises UnsupportedByBroker: if this broker cannot do what an option asks.
        :raises PublishError: for an argument that makes no sense; or if the broker is
            in memory and no worker runs in this process (unless ``TESTING`` is set).
        """
        app = self._get_app_consumers()
        message = compose(
            app.settings.exchange,
            routing_key,
            body,
            app.formats,
            headers=headers,
            key=key,
            delay=delay,
            expires=expires,
            priority=priority,
            content_type=content_type,
            mandatory=mandatory,
            exchange=exchange,
            id=id,
        )
        return app._send([message])[0]

    def publish_many(self, messages: Iterable[Publishable]) -> list[str]:
        """Publish messages, then wait for all confirmations; return their ids.

        :param messages: ``(routing_key, body)`` or ``(routing_key, body, options)``;
            the options are those of :meth:`publish`.
        :raises PublishError: as :meth:`publish`. Its ``errors`` hold ``None`` for each
            message that was confirmed, and an error for each other message.
        """
        app = self._get_app_consumers()
        return app._send(app._compose_many(messages))

    def _get_app_consumers(self) -> AppConsumers:
        raise NotImplementedError


class AppConsumers(PublishMethods):
    """The consumers, settings and broker of one app: ``app.extensions["qconsume"]``."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        check_url(settings.broker_url)
        #: The configuration, checked.
        self.settings = settings
        self.registry = Registry.of(app)
        #: What happens to the app's messages and workers, told to listeners.
        self.events = Events()
        self._signals = SignalSender(app, self.events)
        self._sender = app
        self._circuit = CircuitBreaker(settings.away_after)
        self._broker = PerProcess(self._open_broker, leave=Broker.abandon_after_fork)
        self._capture: Callable[[Outgoing], None] | None = None

    @fork_safe_property
    def consumers(self) -> dict[str, Consumer]:
        """The consumers by full name. Read this once all blueprints are registered.

        :raises ConfigurationError: if configuration names a consumer or a retry policy
            that does not exist.
        :raises RegistrationError: if two consumers read one queue.
        """
        found = self.registry.resolve(self.settings)
        self.registry.close("the app's consumers are in use already")
        return found

    @fork_safe_property
    def formats(self) -> Formats:
        """The formats of bodies. Read this once all blueprints are registered."""
        _ = self.consumers  # Closes the registry: later formats would be missed.
        return self.registry.formats(self.settings.max_items)

    @fork_safe_property
    def topology(self) -> Topology:
        """The exchanges, queues and bindings that the consumers need."""
        return plan_topology(self.settings, self.consumers.values())

    @property
    def broker(self) -> Broker:
        """The app's broker in this process; it connects on first use."""
        return self._broker.get()

    def _get_app_consumers(self) -> AppConsumers:
        return self

    def _compose_many(self, messages: Iterable[Publishable]) -> list[Outgoing]:
        composed: list[Outgoing] = []
        for message in messages:
            if not isinstance(message, (tuple, list)) or len(message) not in (2, 3):
                raise PublishError(
                    f"Message {len(composed)} of 'publish_many' must be a tuple"
                    " (routing_key, body) or (routing_key, body, options), and is a"
                    f" '{type(message).__name__}' that does not fit."
                )
            composed.append(self._compose(*message))
        return composed

    def _compose(
        self, routing_key: str, body: t.Any, options: PublishOptions | None = None
    ) -> Outgoing:
        if options is None:
            options = {}
        check_options(options)
        exchange = self.settings.exchange
        return compose(exchange, routing_key, body, self.formats, **options)

    def _send(self, messages: list[Outgoing]) -> list[str]:
        """Send messages, or pass them to a capturing test; return their ids."""
        if self._capture is not None:
            for message in messages:
                self._capture(message)
        else:
            told = self.events.publishing
            publish = self._publish_and_tell if told else self._publish
            _raise_first(publish(messages))
        return [t.cast(str, message.id) for message in messages]

    def _publish_and_tell(self, messages: list[Outgoing]) -> list[Exception | None]:
        passing = STOPS_AND_LIMITS
        endings = tell(self.events.publishing, messages, passing=passing)
        try:
            errors = self._publish(messages)
        except BaseException as error:
            tell_end(endings, [error] * len(messages), passing)
            raise
        tell_end(endings, errors, passing)
        return errors

    def _publish(self, messages: list[Outgoing]) -> list[Exception | None]:
        try:
            broker = self.broker
            if not broker.can_be_consumed and not self._sender.testing:
                return [make_no_consumer_error(broker) for _ in messages]
            timeout = self.settings.publish_timeout
            errors = self._circuit.publish(broker, messages, timeout)
        except RuntimeError as error:
            raise _explain(error) from error
        return [error and _explain(error) for error in errors]

    def _open_broker(self) -> Broker:
        return open_broker(self.settings, self.topology)

    @contextlib.contextmanager
    def capture_published(self, take: Callable[[Outgoing], None]) -> Iterator[None]:
        """Within the block, call ``take`` with each message instead of sending it."""
        before, self._capture = self._capture, take
        try:
            yield
        finally:
            self._capture = before

    def close(self) -> None:
        """Close open connections to the broker. Publishing opens them again."""
        if self._broker.made is not None:
            self._broker.made.close()


def get_app_consumers(app: Flask | None = None) -> AppConsumers:
    """Return ``app.extensions["qconsume"]``, typed as :class:`AppConsumers`.

    :param app: The current app unless given.
    :raises ConfigurationError: if no ``QConsume`` was initialised on the app.
    :raises RuntimeError: if no app is given outside of an app context.
    """
    extensions = (app or current_app).extensions
    try:
        return t.cast(AppConsumers, extensions[KEY])
    except KeyError:
        name = (app or current_app).import_name
        raise ConfigurationError(
            f"The app '{name}' has no QConsume: call 'QConsume().init_app(app)' where"
            " the app is made."
        ) from None


def _explain(error: Exception) -> Exception:
    """Explain a ``RuntimeError``; it usually means that no thread can be started."""
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
