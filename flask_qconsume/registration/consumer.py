"""A consumer, as it was declared and as it runs. Knows no broker and no gevent."""

from __future__ import annotations

import inspect
import typing as t
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field

from ..errors import RegistrationError
from ..formats.protobuf import ProtobufSchema
from ..formats.protobuf import is_protobuf_class
from ..formats.table import Decoders
from ..retry import RetryPolicy
from ..settings import check_option
from ..text import find_name_problem
from ..text import quote
from .failures import Failures

#: Bytes of AMQP's short strings.
_LONGEST = 255

Handler = Callable[[t.Any], t.Any]
Hook = Callable[..., t.Any]
ErrorHandlers = dict[type[BaseException], Hook]


class SchemaLike(t.Protocol):
    """What a schema must be able to do; marshmallow's schemas can."""

    def load(self, data: t.Any) -> t.Any: ...


@dataclass(frozen=True)
class Declared:
    """A consumer as a decorator declared it, before configuration is known.

    ``None`` stands for: not said here, so a wider default applies.
    """

    name: str
    handler: Handler
    #: A queue's name, or a :class:`kombu.Queue` that is used as given.
    queue: t.Any
    routing_keys: tuple[str, ...]
    schema: SchemaLike | None
    retry: RetryPolicy | str | None
    concurrency: int | None
    prefetch: int | None
    timeout: float | None
    ordering: str | None


@dataclass(frozen=True)
class MessageHooks:
    """What runs around the handler, in the order in which it is called."""

    before: tuple[Hook, ...] = ()
    after: tuple[Hook, ...] = ()
    teardown: tuple[Hook, ...] = ()
    #: Error handlers by class, the innermost scope first.
    errors: tuple[ErrorHandlers, ...] = ()


@dataclass(frozen=True)
class Consumer:
    """A consumer with everything decided: what one subscription runs."""

    name: str
    handler: Handler
    #: The queue's name on the broker, its prefix included.
    queue: str
    #: What its queue is bound with in the app's exchange; empty for a given queue.
    routing_keys: tuple[str, ...]
    schema: SchemaLike | None
    retry: RetryPolicy
    concurrency: int
    prefetch: int
    timeout: float
    enabled: bool
    max_message_size: int
    #: What decodes its bodies, by content type; what is not there is not accepted.
    decoders: Decoders
    #: A :class:`kombu.Queue` that is used as given, and declared by its owner.
    given: t.Any = None
    #: ``"none"``, ``"key"`` or ``"partition"``.
    ordering: str = "none"
    hooks: MessageHooks = field(default_factory=MessageHooks)
    #: Which failures are logged with their tracebacks: ``QCONSUME_LOG_TRACEBACKS``.
    log_tracebacks: str = "first"
    #: What has failed so far, in this process.
    failures: Failures = field(
        default_factory=Failures, init=False, compare=False, repr=False
    )


def declared(
    name: str,
    handler: Handler,
    queue: t.Any,
    *,
    routing_key: str | t.Sequence[str] | None,
    schema: t.Any,
    retry: t.Any,
    concurrency: int | None,
    prefetch: int | None,
    timeout: float | None,
    ordering: str | None,
) -> Declared:
    """Check what a decorator was given.

    :raises RegistrationError: if something of it makes no sense.
    """
    _check_name(name)
    _check_handler(name, handler)
    _check_queue(name, queue, routing_key)
    options = {
        "retry": retry,
        "concurrency": concurrency,
        "prefetch": prefetch,
        "timeout": timeout,
        "ordering": ordering,
    }
    return Declared(
        name=name,
        handler=handler,
        queue=queue,
        routing_keys=_routing_keys(name, routing_key),
        schema=_schema(name, schema),
        **{key: _checked(name, key, value) for key, value in options.items()},
    )


def _check_name(name: t.Any) -> None:
    if not isinstance(name, str) or not name or "." in name:
        raise RegistrationError(
            f"The consumer's name {quote(name)} must be a text without a dot: the dots"
            " of its full name stand between blueprints. Give another one by 'name='."
        )
    _check_text("The consumer's name", name)


def _check_text(what: str, text: str) -> None:
    """Refuse a name that no broker, log or header could show."""
    if problem := find_name_problem(text):
        raise RegistrationError(f"{what} {quote(text)} cannot be one: {problem}.")


def _check_handler(name: str, handler: t.Any) -> None:
    if not callable(handler):
        raise RegistrationError(
            f"The handler of the consumer '{name}' must be a function of one argument,"
            f" the body, not {quote(handler)}."
        )
    if inspect.iscoroutinefunction(handler):
        raise RegistrationError(
            f"The handler of the consumer '{name}' is an 'async def'. Consumers run in"
            " gevent greenlets, where no asyncio loop runs; make it a plain 'def'."
        )
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise RegistrationError(
            f"The handler of the consumer '{name}' has a 'yield', so calling it would"
            " only make a generator, and run nothing of it; make it a plain function."
        )
    try:
        inspect.signature(handler).bind(object())
    except TypeError as error:
        raise RegistrationError(
            f"The handler of the consumer '{name}' must take one positional argument,"
            f" the body: {error}."
        ) from None
    except ValueError:
        return  # A builtin without a signature: calling it will tell.


def _check_queue(name: str, queue: t.Any, routing_key: t.Any) -> None:
    if isinstance(queue, str):
        _check_text(f"The queue of the consumer '{name}',", queue)
        # AMQP's short strings hold 255 bytes; ".suspects" and a prefix need room.
        if not queue or len(queue.encode()) > 200 or queue.startswith("amq."):
            raise RegistrationError(
                f"The queue '{queue}' of the consumer '{name}' must have a name of 1 to"
                " 200 bytes that does not begin with 'amq.'."
            )
        return
    if not is_kombu_queue(queue):
        raise RegistrationError(
            f"The queue of the consumer '{name}' must be a name or a kombu.Queue, not"
            f" {quote(queue)}. Was the decorator used without its arguments?"
        )
    if not queue.name:
        raise RegistrationError(
            f"The kombu.Queue of the consumer '{name}' has no name."
        )
    _check_given(f"The kombu.Queue of the consumer '{name}' has", queue)
    if routing_key is not None:
        raise RegistrationError(
            f"The consumer '{name}' has a kombu.Queue, which is used as given; put its"
            " bindings there, and leave out 'routing_key'."
        )


def _check_given(of: str, queue: t.Any) -> None:
    """The names that a kombu.Queue brings along: AMQP's short strings."""
    pairs = [(queue.exchange, queue.routing_key)]
    pairs += [(binding.exchange, binding.routing_key) for binding in queue.bindings]
    texts = [("a name", queue.name)]
    for exchange, key in pairs:
        texts.append(("an exchange", getattr(exchange, "name", None)))
        texts.append(("a routing key", key))
    for what, text in texts:
        if text:
            _check_text(f"{of} {what},", text)
            _check_length(f"{of} {what},", text)


def _check_length(what: str, text: str) -> None:
    if len(text.encode()) > _LONGEST:
        raise RegistrationError(
            f"{what} {quote(text)} is longer than {_LONGEST} bytes."
        )


def is_kombu_queue(queue: t.Any) -> bool:
    """Whether this is a :class:`kombu.Queue`, told without importing kombu."""
    return any(
        f"{base.__module__}.{base.__qualname__}" == "kombu.entity.Queue"
        for base in type(queue).__mro__
    )


def _routing_keys(name: str, given: t.Any) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, (str, list, tuple, set, frozenset)):
        raise RegistrationError(
            f"The routing key {quote(given)} of the consumer '{name}' must be a text"
            " or a list of texts, such as 'order.created' or ['order.*', 'stock.#']."
        )
    keys = (given,) if isinstance(given, str) else tuple(given)
    for key in keys:
        if isinstance(key, str):
            _check_text(f"The routing key of the consumer '{name}',", key)
        if not isinstance(key, str) or not key or len(key.encode()) > _LONGEST:
            raise RegistrationError(
                f"The routing key '{key}' of the consumer '{name}' must be a text of 1"
                " to 255 bytes, such as 'order.created', 'order.*' or '#'."
            )
    if not keys:
        raise RegistrationError(
            f"The consumer '{name}' has an empty list of routing keys; leave it out to"
            " take what is published under the queue's own name."
        )
    return tuple(dict.fromkeys(keys))


def _schema(name: str, schema: t.Any) -> SchemaLike | None:
    if schema is None:
        return None
    if is_protobuf_class(schema):
        return ProtobufSchema(schema)
    made = schema() if isinstance(schema, type) else schema
    if not callable(getattr(made, "load", None)):
        raise RegistrationError(
            f"The schema of the consumer '{name}' must be a marshmallow Schema or a"
            f" protobuf message class, not {quote(schema)}."
        )
    return t.cast(SchemaLike, made)


def _checked(name: str, key: str, value: t.Any) -> t.Any:
    try:
        return check_option(key, value)
    except (TypeError, ValueError) as error:
        detail = str(error).rstrip(".")
        raise RegistrationError(
            f"'{key}' of the consumer '{name}' cannot be {quote(value)}: {detail}."
        ) from error
