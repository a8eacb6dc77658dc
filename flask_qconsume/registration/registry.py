"""The registry of one app: all registrations, and the consumers that result.

Each extension or blueprint registers one scope. The first registration on an app
creates its registry, so ``init_app`` and ``register_blueprint`` may come in any order.
Knows no broker and no gevent.
"""

from __future__ import annotations

import typing as t
from collections import ChainMap
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping

from flask import Flask

from ..errors import ConfigurationError
from ..errors import RegistrationError
from ..errors import UnknownConsumer
from ..formats.table import Formats
from ..retry import RetryPolicy
from ..settings import MAX_ITEMS
from ..settings import Settings
from ..settings import suggest
from ..text import quote
from .consumer import Consumer
from .consumer import Declaration
from .consumer import Hook
from .consumer import MessageHooks
from .scope import Scope

_KEY = "qconsume_registry"

#: The name of the outermost scope, which is the extension's.
ROOT = ""


class Registry:
    """The registrations on one app: those of its extension and of its blueprints.

    A scope is stored under its blueprint's name; the extension's, under ``""``.
    """

    def __init__(self) -> None:
        self._scopes: dict[str, Scope] = {}
        self._closed_by = ""

    @classmethod
    def of(cls, app: Flask) -> Registry:
        """Return the registry of ``app``; the first call creates it."""
        return t.cast("Registry", app.extensions.setdefault(_KEY, cls()))

    def add_scope(self, name: str, scope: Scope) -> None:
        """Add the registrations of an extension or a blueprint, under its name.

        :raises RegistrationError: if the registry is closed.
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
        """Refuse further registrations, which would have no effect any more.

        :param reason: The reason, for the error's text.
        """
        self._closed_by = reason
        for scope in self._scopes.values():
            scope.closed_by = reason

    def resolve(self, settings: Settings) -> dict[str, Consumer]:
        """Return the consumers by their full names, with all options decided.

        :raises ConfigurationError: if configuration names an unknown consumer or
            policy.
        :raises RegistrationError: if two consumers read the same queue.
        """
        declarations = {
            _join(scope_name, name): (scope_name, declaration)
            for scope_name, scope in self._scopes.items()
            for name, declaration in scope.consumers.items()
        }
        self._check_names(settings, list(declarations))
        formats = self.formats(settings.max_items)
        consumers = {
            full_name: self._create_consumer(
                full_name, scope, declaration, settings, formats
            )
            for full_name, (scope, declaration) in declarations.items()
        }
        _check_queues(consumers.values())
        return consumers

    def formats(self, max_items: int = MAX_ITEMS) -> Formats:
        """Return the app's formats. Call this once all blueprints are registered."""
        scopes = self._scopes.values()
        schemas = [d.schema for s in scopes for d in s.consumers.values()]
        registered = [f for s in scopes for f in s.formats]
        return Formats(registered, schemas, max_items)

    def list_worker_hooks(self, kind: t.Literal["before", "teardown"]) -> list[Hook]:
        """Return all ``before_worker`` or ``teardown_worker`` hooks, in their order."""
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
                    f" registered{suggest(name, names)} There are:"
                    f" {_join_names(names)}."
                )

    def _create_consumer(
        self,
        full_name: str,
        scope_name: str,
        declaration: Declaration,
        settings: Settings,
        formats: Formats,
    ) -> Consumer:
        queue, routing_keys = declaration.queue, declaration.routing_keys
        given_queue = None if isinstance(queue, str) else queue
        options = self._collect_options(full_name, scope_name, declaration, settings)
        concurrency = options.get("concurrency", settings.concurrency)
        policy = options.get("retry", settings.retry)
        return Consumer(
            name=full_name,
            handler=declaration.handler,
            queue=given_queue.name if given_queue else settings.queue_prefix + queue,
            routing_keys=() if given_queue else (routing_keys or (queue,)),
            schema=declaration.schema,
            retry=_choose_policy(full_name, policy, settings.retry_policies),
            concurrency=concurrency,
            prefetch=options.get("prefetch", settings.prefetch or 2 * concurrency),
            timeout=options.get("timeout", settings.timeout),
            enabled=options.get("enabled", True),
            max_message_size=settings.max_message_size,
            decoders=formats.decoders(settings.accept, declaration.schema),
            given=given_queue,
            ordering=options.get("ordering", settings.ordering),
            hooks=self._collect_hooks(scope_name),
            log_tracebacks=settings.log_tracebacks,
        )

    def _collect_options(
        self,
        full_name: str,
        scope_name: str,
        declaration: Declaration,
        settings: Settings,
    ) -> ChainMap[str, t.Any]:
        """Collect a consumer's options: from configuration, decorator, blueprints.

        The first place that has an option decides; the blueprints are asked from the
        innermost one on.
        """
        outside_in = list(self._find_scopes(scope_name))
        return ChainMap(
            settings.consumers.get(full_name, {}),
            dict(declaration.options),
            *(dict(scope.defaults) for scope in reversed(outside_in)),
        )

    def _collect_hooks(self, scope_name: str) -> MessageHooks:
        outside_in = list(self._find_scopes(scope_name))
        inside_out = outside_in[::-1]
        return MessageHooks(
            before=tuple(h for s in outside_in for h in s.before_message),
            after=tuple(h for s in inside_out for h in s.after_message[::-1]),
            teardown=tuple(h for s in inside_out for h in s.teardown_message[::-1]),
            errors=tuple(s.errors for s in inside_out if s.errors),
        )

    def _find_scopes(self, scope_name: str) -> Iterator[Scope]:
        names = [ROOT]
        for name_part in filter(None, scope_name.split(".")):
            names.append(_join(names[-1], name_part))
        return (self._scopes[name] for name in names if name in self._scopes)


def _choose_policy(
    consumer: str, policy: RetryPolicy | str, known: Mapping[str, RetryPolicy]
) -> RetryPolicy:
    if not isinstance(policy, str):
        return policy
    if policy not in known:
        raise ConfigurationError(
            f"The consumer '{consumer}' wants the retry policy '{policy}', which is"
            f" not in 'QCONSUME_RETRY_POLICIES'{suggest(policy, known)} There are:"
            f" {_join_names(known)}."
        )
    return known[policy]


def find_consumer(consumers: Mapping[str, Consumer], name: str) -> Consumer:
    """Return the consumer with this full name, such as ``orders.bill``.

    :raises UnknownConsumer: if no consumer has that name.
    """
    try:
        return consumers[name]
    except KeyError:
        raise UnknownConsumer(
            f"There is no consumer {quote(name)}{suggest(name, consumers)}"
            f" There are: {_join_names(consumers)}."
        ) from None


def _check_queues(consumers: Iterable[Consumer]) -> None:
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


def _join_names(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names)) or "none"
