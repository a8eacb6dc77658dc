"""All that was registered on one app: its scopes, and the consumers they make.

A registry is there as soon as anything is registered on an app, so the order of
``init_app`` and ``register_blueprint`` is free. Knows no broker and no gevent.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterator

from flask import Flask

from ..errors import ConfigurationError
from ..errors import RegistrationError
from ..errors import UnknownConsumer
from ..formats.table import Formats
from ..settings import MAX_ITEMS
from ..settings import Settings
from ..settings import suggest
from ..text import quote
from .consumer import Consumer
from .consumer import Declared
from .consumer import Hook
from .consumer import MessageHooks
from .scope import Scope

_KEY = "qconsume_registry"

#: The name of the root scope, the extension's.
ROOT = ""


class Registry:
    """The scopes of one app by name; the root's is ``""``."""

    def __init__(self) -> None:
        self._scopes: dict[str, Scope] = {}
        self._closed_by = ""

    @classmethod
    def of(cls, app: Flask) -> Registry:
        """The registry of ``app``, made when it is first asked for."""
        return t.cast("Registry", app.extensions.setdefault(_KEY, cls()))

    def add_scope(self, name: str, scope: Scope) -> None:
        """Add what an extension or a blueprint registered, under its name.

        :raises RegistrationError: if it comes too late to have any effect.
        """
        if self._closed_by:
            raise RegistrationError(
                f"'{name or 'QConsume'}' cannot be registered any more:"
                f" {self._closed_by}. Register all blueprints before the app publishes"
                " or consumes."
            )
        self._scopes[name] = scope
        scope.owned = True

    def close(self, reason: str) -> None:
        """Refuse further registrations, since they would have no effect any more."""
        self._closed_by = reason
        for scope in self._scopes.values():
            scope.closed_by = reason

    def resolve(self, settings: Settings) -> dict[str, Consumer]:
        """The consumers by their full names, everything decided.

        :raises ConfigurationError: for an unknown consumer or policy.
        :raises RegistrationError: for two consumers of one queue.
        """
        found = {
            _join(scope_name, name): (scope_name, declared)
            for scope_name, scope in self._scopes.items()
            for name, declared in scope.consumers.items()
        }
        self._check_names(settings, list(found))
        formats = self.formats(settings.max_items)
        consumers = {
            full: self._consumer(full, scope_name, declared, settings, formats)
            for full, (scope_name, declared) in found.items()
        }
        _check_queues(consumers.values())
        return consumers

    def formats(self, max_items: int = MAX_ITEMS) -> Formats:
        """The formats of the app, once all is registered."""
        scopes = self._scopes.values()
        schemas = [d.schema for s in scopes for d in s.consumers.values()]
        registered = [f for s in scopes for f in s.formats]
        return Formats(registered, schemas, max_items)

    def worker_hooks(self, kind: t.Literal["before", "teardown"]) -> list[Hook]:
        """The hooks of a worker in the order in which they are called."""
        hooks = [
            hook
            for scope in self._scopes.values()
            for hook in getattr(scope, f"{kind}_worker")
        ]
        return hooks if kind == "before" else hooks[::-1]

    def _check_names(self, settings: Settings, names: list[str]) -> None:
        for name in settings.consumers:
            if name not in names:
                raise ConfigurationError(
                    f"'QCONSUME_CONSUMERS' names the consumer '{name}', which is not"
                    f" registered{suggest(name, names)} There are: {_list(names)}."
                )

    def _consumer(
        self,
        full: str,
        scope_name: str,
        declared: Declared,
        settings: Settings,
        formats: Formats,
    ) -> Consumer:
        given = None if isinstance(declared.queue, str) else declared.queue
        options = _Options(settings, settings.consumers.get(full, {}), declared)
        concurrency = options.get("concurrency", settings.concurrency)
        return Consumer(
            name=full,
            handler=declared.handler,
            queue=given.name if given else settings.queue_prefix + declared.queue,
            routing_keys=() if given else (declared.routing_keys or (declared.queue,)),
            schema=declared.schema,
            retry=options.retry(full),
            concurrency=concurrency,
            prefetch=options.get("prefetch", settings.prefetch or 2 * concurrency),
            timeout=options.get("timeout", settings.timeout),
            enabled=options.get("enabled", True),
            max_message_size=settings.max_message_size,
            decoders=formats.decoders(settings.accept, declared.schema),
            given=given,
            ordering=options.get("ordering", settings.ordering),
            hooks=self._hooks(scope_name),
            log_tracebacks=settings.log_tracebacks,
        )

    def _hooks(self, scope_name: str) -> MessageHooks:
        outside_in = list(self._chain(scope_name))
        inside_out = outside_in[::-1]
        return MessageHooks(
            before=tuple(h for s in outside_in for h in s.before_message),
            after=tuple(h for s in inside_out for h in s.after_message[::-1]),
            teardown=tuple(h for s in inside_out for h in s.teardown_message[::-1]),
            errors=tuple(s.errors for s in inside_out if s.errors),
        )

    def _chain(self, scope_name: str) -> Iterator[Scope]:
        """The scopes around one name, from the root inwards."""
        names = [ROOT]
        for part in filter(None, scope_name.split(".")):
            names.append(_join(names[-1], part))
        return (self._scopes[name] for name in names if name in self._scopes)


class _Options:
    """The options of one consumer: configuration beats decorator beats default."""

    def __init__(
        self, settings: Settings, configured: dict[str, t.Any], declared: Declared
    ) -> None:
        self._settings = settings
        self._configured = configured
        self._declared = declared

    def get(self, name: str, default: t.Any) -> t.Any:
        for value in (
            self._configured.get(name),
            getattr(self._declared, name, None),
        ):
            if value is not None:
                return value
        return default

    def retry(self, consumer: str) -> t.Any:
        policy = self.get("retry", self._settings.retry)
        if not isinstance(policy, str):
            return policy
        known = self._settings.retry_policies
        if policy not in known:
            raise ConfigurationError(
                f"The consumer '{consumer}' wants the retry policy '{policy}', which is"
                f" not in 'QCONSUME_RETRY_POLICIES'{suggest(policy, known)} There"
                f" are: {_list(known)}."
            )
        return known[policy]


def find_consumer(consumers: t.Mapping[str, Consumer], name: str) -> Consumer:
    """The consumer of that full name.

    :raises UnknownConsumer: if there is none.
    """
    try:
        return consumers[name]
    except KeyError:
        raise UnknownConsumer(
            f"There is no consumer {quote(name)}{suggest(name, consumers)}"
            f" There are: {_list(consumers)}."
        ) from None


def _check_queues(consumers: t.Iterable[Consumer]) -> None:
    by_queue: dict[str, str] = {}
    for consumer in consumers:
        other = by_queue.setdefault(consumer.queue, consumer.name)
        if other != consumer.name:
            raise RegistrationError(
                f"The consumers '{other}' and '{consumer.name}' read the same queue"
                f" '{consumer.queue}', so each would get a part of its messages. Give"
                " each a queue of its own: bound with the same 'routing_key', both get"
                " every message."
            )


def _join(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name


def _list(names: t.Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names)) or "none"
