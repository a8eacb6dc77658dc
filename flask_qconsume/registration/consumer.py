"""Consumers: declared by a decorator, then completed by the configuration.

Knows no broker and no gevent.
"""

from __future__ import annotations

import inspect
import typing as t
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

from ..errors import RegistrationError
from ..formats.protobuf import ProtobufSchema
from ..formats.protobuf import is_protobuf_class
from ..formats.table import Decoders
from ..retry import RetryPolicy
from ..seconds import Duration
from ..settings import check_option
from ..settings import suggest
from ..text import find_name_problem
from ..text import quote
from .failures import Failures

#: Bytes of the longest name or routing key, which AMQP writes as a short string.
_MAX_SHORT_BYTES = 255

#: Bytes of the longest queue name: a prefix and ".suspects" are added to it.
_MAX_QUEUE_BYTES = 200

Handler = Callable[[t.Any], t.Any]
Hook = Callable[..., t.Any]
ErrorHandlers = dict[type[BaseException], Hook]

Ordering = t.Literal["none", "key", "partition"]

#: A retry policy, its arguments, or the name of a policy in
#: ``QCONSUME_RETRY_POLICIES``.
Retries = RetryPolicy | Mapping[str, t.Any] | str


class SchemaLike(t.Protocol):
    """An object with a ``load`` method like that of marshmallow's schemas."""

    def load(self, data: t.Any) -> t.Any: ...


class KombuExchange(t.Protocol):
    """The type of a :class:`kombu.Exchange`, since kombu has no type hints."""

    @property
    def name(self) -> t.Any: ...


class KombuQueue(t.Protocol):
    """The type of a :class:`kombu.Queue`, since kombu has no type hints."""

    @property
    def name(self) -> t.Any: ...

    @property
    def exchange(self) -> t.Any: ...

    @property
    def bindings(self) -> t.Any: ...


class ConsumerOptions(t.TypedDict, total=False):
    """The options that a blueprint's ``consumer_defaults`` may have."""

    concurrency: int | None
    ordering: Ordering | None
    prefetch: int | None
    retry: Retries | None
    timeout: Duration | None


_OPTIONS = tuple(sorted(ConsumerOptions.__annotations__))


@dataclass(frozen=True)
class Declaration:
    """A consumer as its decorator declared it, before the configuration is read."""

    name: str
    handler: Handler
    #: A queue's name, or a :class:`kombu.Queue` that is used unchanged.
    queue: t.Any
    routing_keys: tuple[str, ...]
    schema: SchemaLike | None
    #: The options given to the decorator, checked; defaults apply to all other options.
    options: Mapping[str, t.Any]


@dataclass(frozen=True)
class MessageHooks:
    """The hooks and error handlers around a handler, in the order of their calls."""

    before: tuple[Hook, ...] = ()
    after: tuple[Hook, ...] = ()
    teardown: tuple[Hook, ...] = ()
    #: Error handlers by class, those of the innermost scope first.
    errors: tuple[ErrorHandlers, ...] = ()


@dataclass(frozen=True)
class Consumer:
    """A consumer with all of its options, from the decorator and the configuration."""

    name: str
    handler: Handler
    #: The queue's name on the broker, its prefix included.
    queue: str
    #: The queue's bindings to the app's exchange; empty for a :class:`kombu.Queue`.
    routing_keys: tuple[str, ...]
    schema: SchemaLike | None
    retry: RetryPolicy
    concurrency: int
    prefetch: int
    #: Time limit of the handler in seconds.
    timeout: float
    enabled: bool
    #: Largest accepted body in bytes.
    max_message_size: int
    #: Decoders of the accepted content types.
    decoders: Decoders
    #: A :class:`kombu.Queue` that is used unchanged, and declared by its owner.
    given: t.Any = None
    #: ``"none"``, ``"key"`` or ``"partition"``.
    ordering: str = "none"
    hooks: MessageHooks = field(default_factory=MessageHooks)
    #: ``QCONSUME_LOG_TRACEBACKS``: which failures are logged with tracebacks.
    log_tracebacks: str = "first"
    #: The failures of this process so far.
    failures: Failures = field(
        default_factory=Failures, init=False, compare=False, repr=False
    )


def declare_consumer(
    name: str,
    handler: Handler,
    queue: str | KombuQueue,
    *,
    routing_key: str | Sequence[str] | None,
    schema: t.Any,
    options: ConsumerOptions,
) -> Declaration:
    """Check the arguments of the decorator ``consumer``; return the declaration.

    :raises RegistrationError: for an argument that makes no sense.
    """
    _check_name(name)
    _check_handler(name, handler)
    _check_queue(name, queue, routing_key)
    return Declaration(
        name=name,
        handler=handler,
        queue=queue,
        routing_keys=_check_routing_keys(name, routing_key),
        schema=_create_schema(name, schema),
        options=_check_options(f"of the consumer '{name}'", options),
    )


def check_defaults(defaults: t.Any) -> dict[str, t.Any]:
    """Check a blueprint's ``consumer_defaults``; return the options by name.

    :raises RegistrationError: for an unknown option or a wrong value.
    """
    if defaults is None:
        return {}
    if not isinstance(defaults, Mapping):
        raise RegistrationError(
            "'consumer_defaults' must be a mapping of options, such as"
            f' {{"concurrency": 5}}, not {quote(defaults)}.'
        )
    for option in defaults:
        if option not in _OPTIONS:
            raise RegistrationError(
                f"'consumer_defaults' has no option {quote(option)}"
                f"{suggest(str(option), _OPTIONS)} There are: {', '.join(_OPTIONS)}."
            )
    return _check_options("in 'consumer_defaults'", t.cast(ConsumerOptions, defaults))


def _check_options(where: str, options: ConsumerOptions) -> dict[str, t.Any]:
    return {
        key: _check_option(where, key, value)
        for key, value in options.items()
        if value is not None
    }


def _check_option(where: str, key: str, value: t.Any) -> t.Any:
    try:
        return check_option(key, value)
    except (TypeError, ValueError) as error:
        detail = str(error).rstrip(".")
        raise RegistrationError(
            f"'{key}' {where} cannot be {quote(value)}: {detail}."
        ) from error


def _check_name(name: t.Any) -> None:
    if not isinstance(name, str) or not name or "." in name:
        raise RegistrationError(
            f"The consumer's name {quote(name)} must be a text without a dot: the dots"
            " of its full name stand between blueprints. Give another one by 'name='."
        )
    _check_text("The consumer's name", name)


def _check_text(what: str, text: str) -> None:
    """Refuse a name with characters that a broker or a log cannot show."""
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
        return  # A builtin without a signature: the first call shows what it takes.


def _check_queue(name: str, queue: t.Any, routing_key: t.Any) -> None:
    if isinstance(queue, str):
        _check_text(f"The queue of the consumer '{name}',", queue)
        if (
            not queue
            or len(queue.encode()) > _MAX_QUEUE_BYTES
            or queue.startswith("amq.")
        ):
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
    """Refuse a kombu.Queue that has names which a broker or a log cannot show."""
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
    if len(text.encode()) > _MAX_SHORT_BYTES:
        raise RegistrationError(
            f"{what} {quote(text)} is longer than {_MAX_SHORT_BYTES} bytes."
        )


def is_kombu_queue(queue: t.Any) -> bool:
    """Return whether a value is a :class:`kombu.Queue`, without importing kombu."""
    return any(
        f"{base.__module__}.{base.__qualname__}" == "kombu.entity.Queue"
        for base in type(queue).__mro__
    )


def _check_routing_keys(name: str, routing_keys: t.Any) -> tuple[str, ...]:
    if routing_keys is None:
        return ()
    if not isinstance(routing_keys, (str, list, tuple, set, frozenset)):
        raise RegistrationError(
            f"The routing key {quote(routing_keys)} of the consumer '{name}' must be a"
            " text or a list of texts, such as 'order.created' or ['order.*',"
            " 'stock.#']."
        )
    keys = (routing_keys,) if isinstance(routing_keys, str) else tuple(routing_keys)
    for key in keys:
        if isinstance(key, str):
            _check_text(f"The routing key of the consumer '{name}',", key)
        if not isinstance(key, str) or not key or len(key.encode()) > _MAX_SHORT_BYTES:
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


def _create_schema(name: str, schema: t.Any) -> SchemaLike | None:
    if schema is None:
        return None
    if is_protobuf_class(schema):
        return ProtobufSchema(schema)
    instance = schema() if isinstance(schema, type) else schema
    if not callable(getattr(instance, "load", None)):
        raise RegistrationError(
            f"The schema of the consumer '{name}' must be a marshmallow Schema or a"
            f" protobuf message class, not {quote(schema)}."
        )
    return t.cast(SchemaLike, instance)
