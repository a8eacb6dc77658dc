"""The decorators that both extensions and blueprints have.

Each decorator calls a method that does the same (``consumer`` calls ``add_consumer``),
and returns the function unchanged. Knows no broker and no gevent.
"""

from __future__ import annotations

import gc
import inspect
import typing as t
import weakref
from collections.abc import Callable
from collections.abc import Sequence

from flask import Flask
from flask.sansio.blueprints import Blueprint
from flask.sansio.blueprints import BlueprintSetupState

from ..errors import RegistrationError
from ..seconds import Duration
from ..text import quote
from .consumer import ConsumerOptions
from .consumer import Hook
from .consumer import KombuQueue
from .consumer import Ordering
from .consumer import Retries
from .consumer import SchemaLike
from .consumer import check_defaults
from .consumer import declare_consumer
from .registry import Registry
from .scope import Scope

F = t.TypeVar("F", bound=Callable[..., t.Any])

#: All extensions and blueprints, to find those that no app registered.
_scaffolds: weakref.WeakSet[ConsumerScaffold] = weakref.WeakSet()


class ConsumerScaffold:
    """A mixin that lets a blueprint register consumers, hooks and error handlers.

    Put it before the blueprint class of another package: ``class
    Blueprint(ConsumerScaffold, APIBlueprint)``. :class:`~.ConsumerBlueprint` is Flask's
    own blueprint with this mixin.

    :param consumer_defaults: Options that the consumers inherit: ``concurrency``,
        ``ordering``, ``prefetch``, ``retry``, ``timeout``. They override app-wide
        settings; a decorator's own arguments and ``QCONSUME_CONSUMERS`` override them.
        Consumers of nested blueprints inherit them as well; the innermost blueprint
        that has an option decides.
    :raises RegistrationError: for an unknown option or a wrong value; also by a class
        statement that has the mixin after the blueprint class.
    """

    def __init_subclass__(cls, **kwargs: t.Any) -> None:
        super().__init_subclass__(**kwargs)
        bases = cls.__mro__
        # Flask's blueprint calls no other __init__, so the mixin's would not run.
        if Blueprint in bases[: bases.index(ConsumerScaffold)]:
            raise RegistrationError(
                f"'{cls.__name__}' has 'ConsumerScaffold' after its blueprint class,"
                " so consumers cannot be registered on it. Write 'ConsumerScaffold'"
                f" first: 'class {cls.__name__}(ConsumerScaffold, …)'"
            )

    def __init__(
        self,
        *args: t.Any,
        consumer_defaults: ConsumerOptions | None = None,
        **kwargs: t.Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._qconsume_scope = Scope(check_defaults(consumer_defaults))
        _scaffolds.add(self)
        record = getattr(self, "record", None)
        if record is not None:
            record(self._qconsume_register)

    def _qconsume_register(self, state: BlueprintSetupState) -> None:
        name = f"{state.name_prefix}.{state.name}".lstrip(".")
        Registry.of(t.cast(Flask, state.app)).add_scope(name, self._qconsume_scope)
        self._qconsume_scope.closed_by = (
            f"the blueprint '{name}' has been registered on an app"
        )

    def _qconsume_describe_missing_call(self) -> str:
        name = getattr(self, "name", "")
        return f"app.register_blueprint(…) for the blueprint '{name}'"

    def consumer(
        self,
        queue: str | KombuQueue,
        *,
        routing_key: str | Sequence[str] | None = None,
        name: str | None = None,
        schema: SchemaLike | type[t.Any] | None = None,
        retry: Retries | None = None,
        concurrency: int | None = None,
        prefetch: int | None = None,
        timeout: Duration | None = None,
        ordering: Ordering | None = None,
    ) -> Callable[[F], F]:
        """Register the decorated function as the handler of a queue.

        The function takes one argument, the body, decoded and loaded by the schema. The
        decorator returns the function unchanged. Options that are not given come from
        the blueprint's ``consumer_defaults``, then from the configuration.

        :param queue: The queue's name, or a :class:`kombu.Queue`, which is used
            unchanged.
        :param routing_key: One or several routing keys or patterns (``"order.*"``,
            ``"#"``) that bind the queue to the app's exchange. Every bound queue gets
            its own copy of a message. Without a routing key, the queue gets the
            messages that are published under the queue's own name.
        :param name: The consumer's name; by default, the function's. The full name has
            the blueprint's name before it: ``"orders.bill"``.
        :param schema: A marshmallow schema, instance or class, or a protobuf message
            class. If it refuses a body, the message becomes a dead letter.
        :param retry: A retry policy, its arguments, or the name of a policy in
            ``QCONSUME_RETRY_POLICIES``; ``QCONSUME_RETRY`` unless given.
        :param concurrency: The number of messages that one process handles at once;
            ``QCONSUME_CONCURRENCY`` unless given.
        :param prefetch: The number of unsettled messages that one process holds;
            ``QCONSUME_PREFETCH``, or twice the concurrency, unless given.
        :param timeout: The handler's time limit: seconds or a
            :class:`~datetime.timedelta`; ``QCONSUME_TIMEOUT`` unless given.
        :param ordering: ``"key"`` handles messages of one key one after the other,
            ``"partition"`` all messages of one partition; a message that waits for a
            retry holds back the later messages. ``QCONSUME_ORDERING`` unless given.
        :raises RegistrationError: for an argument that makes no sense, or if it is too
            late: the blueprint is registered, or the app is in use.
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
        queue: str | KombuQueue,
        handler: Callable[[t.Any], t.Any],
        *,
        routing_key: str | Sequence[str] | None = None,
        name: str | None = None,
        schema: SchemaLike | type[t.Any] | None = None,
        retry: Retries | None = None,
        concurrency: int | None = None,
        prefetch: int | None = None,
        timeout: Duration | None = None,
        ordering: Ordering | None = None,
    ) -> None:
        """Register ``handler`` for a queue, as the decorator :meth:`consumer` does.

        :param queue: The queue's name, or a :class:`kombu.Queue`, which is used
            unchanged.
        :param handler: Called with the body, decoded and loaded by the schema.
        :param routing_key: One or several routing keys or patterns (``"order.*"``,
            ``"#"``) that bind the queue to the app's exchange. Every bound queue gets
            its own copy of a message. Without a routing key, the queue gets the
            messages that are published under the queue's own name.
        :param name: The consumer's name; by default, the function's. The full name has
            the blueprint's name before it: ``"orders.bill"``.
        :param schema: A marshmallow schema, instance or class, or a protobuf message
            class. If it refuses a body, the message becomes a dead letter.
        :param retry: A retry policy, its arguments, or the name of a policy in
            ``QCONSUME_RETRY_POLICIES``; ``QCONSUME_RETRY`` unless given.
        :param concurrency: The number of messages that one process handles at once;
            ``QCONSUME_CONCURRENCY`` unless given.
        :param prefetch: The number of unsettled messages that one process holds;
            ``QCONSUME_PREFETCH``, or twice the concurrency, unless given.
        :param timeout: The handler's time limit: seconds or a
            :class:`~datetime.timedelta`; ``QCONSUME_TIMEOUT`` unless given.
        :param ordering: ``"key"`` handles messages of one key one after the other,
            ``"partition"`` all messages of one partition; a message that waits for a
            retry holds back the later messages. ``QCONSUME_ORDERING`` unless given.
        :raises RegistrationError: for an argument that makes no sense, or if it is too
            late: the blueprint is registered, or the app is in use.
        """
        self._qconsume_scope.check_open("consumer")
        name = name or str(getattr(handler, "__name__", ""))
        if name in self._qconsume_scope.consumers:
            raise RegistrationError(
                f"There is a consumer '{name}' already; give this one another 'name='."
            )
        self._qconsume_scope.consumers[name] = declare_consumer(
            name,
            handler,
            queue,
            routing_key=routing_key,
            schema=schema,
            options={
                "retry": retry,
                "concurrency": concurrency,
                "prefetch": prefetch,
                "timeout": timeout,
                "ordering": ordering,
            },
        )

    def before_message(self, hook: F) -> F:
        """Call the decorated function before each handler.

        If it returns an outcome, the handler is skipped. The app's hooks run first,
        then those of its blueprints, the outermost first.
        """
        return self._add_hook("before_message", hook)

    def after_message(self, hook: F) -> F:
        """Call the decorated function with each outcome; it may return another one.

        The hooks of the innermost blueprint run first, the latest registered before
        earlier ones. If a hook raises, a message that would be acknowledged goes to its
        retry policy instead.
        """
        return self._add_hook("after_message", hook)

    def teardown_message(self, hook: F) -> F:
        """Call the decorated function after each message, with the error if any."""
        return self._add_hook("teardown_message", hook)

    def before_worker(self, hook: F) -> F:
        """Call the decorated function once, before a worker process consumes.

        It runs in an app context. If it raises, the worker does not start.
        """
        return self._add_hook("before_worker", hook)

    def teardown_worker(self, hook: F) -> F:
        """Call the decorated function once, after a worker has stopped.

        It runs in an app context, before functions that were registered earlier.
        """
        return self._add_hook("teardown_worker", hook)

    def message_errorhandler(self, error: type[BaseException]) -> Callable[[F], F]:
        """Let the decorated function decide the outcome of a class of errors.

        The function takes the error, and returns an outcome, or ``None`` to leave the
        error to the next error handler. The innermost blueprint's error handlers come
        first; within a blueprint, the order of the classes in the error's MRO decides.
        """

        _check_error_class(error)

        def decorator(handler: F) -> F:
            self.register_message_error_handler(error, handler)
            return handler

        return decorator

    def register_message_error_handler(
        self, error: type[BaseException], handler: Hook
    ) -> None:
        """Register ``handler``, as the decorator :meth:`message_errorhandler` does."""
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
    """Return, as texts, the calls that would register forgotten blueprints."""
    if any(_find_unowned()):
        # Blueprints that are garbage do not belong to the program any more.
        gc.collect()
    return sorted(
        scaffold._qconsume_describe_missing_call() for scaffold in _find_unowned()
    )


def _find_unowned() -> list[ConsumerScaffold]:
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
