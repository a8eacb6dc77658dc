"""The decorators: what an extension and a blueprint have in common.

Each decorator is a thin skin over a method of the same work (``consumer`` over
``add_consumer``), and returns the function unchanged. Knows no broker and no gevent.
"""

from __future__ import annotations

import gc
import inspect
import typing as t
import weakref
from collections.abc import Callable

from flask import Flask
from flask.sansio.blueprints import BlueprintSetupState

from ..errors import RegistrationError
from ..retry import RetryPolicy
from ..text import quote
from .consumer import Hook
from .consumer import declared
from .registry import Registry
from .scope import Scope

F = t.TypeVar("F", bound=Callable[..., t.Any])

#: All that there are, to name those which were forgotten.
_scaffolds: weakref.WeakSet[ConsumerScaffold] = weakref.WeakSet()


class ConsumerScaffold:
    """Adds consumers, hooks and error handlers to a class that registers things.

    Mix it into a blueprint class of your own, before the blueprint:
    ``class Blueprint(ConsumerScaffold, APIBlueprint)``. See
    :class:`~flask_qconsume.ConsumerBlueprint`.
    """

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self._qconsume_scope = Scope()
        _scaffolds.add(self)
        record = getattr(self, "record", None)
        if record is not None:
            record(self._qconsume_register)

    def _qconsume_register(self, state: BlueprintSetupState) -> None:
        """Replayed for each registration of the blueprint, as its views are."""
        name = f"{state.name_prefix}.{state.name}".lstrip(".")
        Registry.of(t.cast(Flask, state.app)).add_scope(name, self._qconsume_scope)
        self._qconsume_scope.closed_by = (
            f"the blueprint '{name}' has been registered on an app"
        )

    def _qconsume_remedy(self) -> str:
        """What gives its consumers to an app."""
        name = getattr(self, "name", "")
        return f"app.register_blueprint(…) for the blueprint '{name}'"

    def consumer(
        self,
        queue: t.Any,
        *,
        routing_key: str | t.Sequence[str] | None = None,
        name: str | None = None,
        schema: t.Any = None,
        retry: RetryPolicy | t.Mapping[str, t.Any] | str | None = None,
        concurrency: int | None = None,
        prefetch: int | None = None,
        timeout: float | None = None,
        ordering: str | None = None,
    ) -> Callable[[F], F]:
        """Register the decorated function as the handler of a queue.

        The arguments are those of :meth:`add_consumer`.
        """
        if inspect.isroutine(queue):
            raise RegistrationError(
                f"'consumer' was used without its arguments. Name the queue above"
                f" '{queue.__name__}': '@….consumer(\"{queue.__name__}\")'."
            )

        def decorator(handler: F) -> F:
            self.add_consumer(
                queue,
                handler,
                routing_key=routing_key,
                name=name,
                schema=schema,
                retry=retry,
                concurrency=concurrency,
                prefetch=prefetch,
                timeout=timeout,
                ordering=ordering,
            )
            return handler

        return decorator

    def add_consumer(
        self,
        queue: t.Any,
        handler: Callable[[t.Any], t.Any],
        *,
        routing_key: str | t.Sequence[str] | None = None,
        name: str | None = None,
        schema: t.Any = None,
        retry: RetryPolicy | t.Mapping[str, t.Any] | str | None = None,
        concurrency: int | None = None,
        prefetch: int | None = None,
        timeout: float | None = None,
        ordering: str | None = None,
    ) -> None:
        """Register ``handler`` for the messages of a queue.

        :param queue: The queue's name; or a :class:`kombu.Queue` of somebody else's,
            which is used as given.
        :param handler: Called with the body, decoded, and loaded by the schema.
        :param routing_key: What the queue gets of what is published: a routing key, a
            pattern (``"order.*"``, ``"#"``) or a list of them. Every queue bound gets a
            copy of its own. Left out, it gets what is published under its own name.
        :param name: The function's name unless given. The full name has the blueprint's
            before it: ``"orders.bill"``.
        :param schema: A marshmallow schema, instance or class. What it refuses is a
            dead letter with its messages. Or a protobuf message class.
        :param retry: A policy, its arguments, or the name of one in
            ``QCONSUME_RETRY_POLICIES``; ``QCONSUME_RETRY`` unless given.
        :param concurrency: How many messages are handled at once in one process;
            ``QCONSUME_CONCURRENCY`` unless given.
        :param prefetch: How many unsettled messages are held; ``QCONSUME_PREFETCH``, or
            twice the concurrency, unless given.
        :param timeout: Seconds that the handler may take; ``QCONSUME_TIMEOUT`` unless
            given.
        :param ordering: ``"key"``: messages of one key are handled one after the other;
            ``"partition"``: all of one partition; a retry holds back what is behind it.
            ``QCONSUME_ORDERING``, or ``"none"``, unless given.
        :raises RegistrationError: if something of it makes no sense, or comes too late.
        """
        self._qconsume_scope.check_open("consumer")
        name = name or str(getattr(handler, "__name__", ""))
        if name in self._qconsume_scope.consumers:
            raise RegistrationError(
                f"There is a consumer '{name}' already; give this one another 'name='."
            )
        self._qconsume_scope.consumers[name] = declared(
            name,
            handler,
            queue,
            routing_key=routing_key,
            schema=schema,
            retry=retry,
            concurrency=concurrency,
            prefetch=prefetch,
            timeout=timeout,
            ordering=ordering,
        )

    def before_message(self, hook: F) -> F:
        """Run a function before each handler; an outcome it returns ends the message.

        The app's run first, then those of the blueprints from outside in.
        """
        return self._add_hook("before_message", hook)

    def after_message(self, hook: F) -> F:
        """Run a function with the outcome after each handler; it may return another.

        The innermost blueprint's run first, the last registered before the others. If
        one raises, a message that would be acknowledged goes to its retry policy.
        """
        return self._add_hook("after_message", hook)

    def teardown_message(self, hook: F) -> F:
        """Run a function at the end of each message, with the error or ``None``."""
        return self._add_hook("teardown_message", hook)

    def before_worker(self, hook: F) -> F:
        """Run a function once in each worker process before it consumes.

        It runs in an app context. If it raises, the worker does not start.
        """
        return self._add_hook("before_worker", hook)

    def teardown_worker(self, hook: F) -> F:
        """Run a function once when a worker has stopped, the last registered first."""
        return self._add_hook("teardown_worker", hook)

    def message_errorhandler(self, error: type[BaseException]) -> Callable[[F], F]:
        """Register a function that decides what an error of this class means.

        It is called with the error and returns an outcome, or ``None`` for: not mine,
        go on. Handlers of the innermost blueprint are asked first, and within one
        those of the nearest class.
        """

        _check_error_class(error)

        def decorator(handler: F) -> F:
            self.register_message_error_handler(error, handler)
            return handler

        return decorator

    def register_message_error_handler(
        self, error: type[BaseException], handler: Hook
    ) -> None:
        """Do what :meth:`message_errorhandler` does, without a decorator."""
        self._qconsume_scope.check_open("message_errorhandler")
        _check_error_class(error)
        self._qconsume_scope.errors[error] = handler

    def _add_hook(self, kind: str, hook: F) -> F:
        self._qconsume_scope.check_open(kind)
        if not callable(hook):
            raise RegistrationError(f"'{kind}' takes a function, not {quote(hook)}.")
        getattr(self._qconsume_scope, kind).append(hook)
        return hook


def list_unregistered() -> list[str]:
    """For each blueprint or extension that has consumers and no app: what to call."""
    if any(_unowned()):
        # Those that nothing refers to any more are not part of the program.
        gc.collect()
    return sorted(scaffold._qconsume_remedy() for scaffold in _unowned())


def _unowned() -> list[ConsumerScaffold]:
    return [
        scaffold
        for scaffold in _scaffolds
        if scaffold._qconsume_scope.consumers and not scaffold._qconsume_scope.owned
    ]


def _check_error_class(error: t.Any) -> None:
    if not (isinstance(error, type) and issubclass(error, BaseException)):
        raise RegistrationError(
            f"'message_errorhandler' takes an exception class, not {quote(error)}."
        )
