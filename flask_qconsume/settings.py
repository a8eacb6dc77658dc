"""The configuration: one table, read once. The only place that reads ``app.config``.

:data:`TABLE` lists every key with its type, its default and its meaning; the reference
page is rendered from it. Knows nothing about Flask: ``app.config`` is a mapping.
"""

from __future__ import annotations

import json
import os
import re
import typing as t
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from difflib import get_close_matches
from urllib.parse import urlsplit

from .errors import ConfigurationError
from .retry import RetryPolicy
from .seconds import parse_seconds
from .text import find_name_problem
from .text import quote

PREFIX = "QCONSUME_"

#: Type and subtype, without wildcards; parameters may follow.
_CONTENT_TYPE = re.compile(r"[^\s/*;]+/[^\s/*;]+\s*(;|$)")

JSON = "application/json"
MSGPACK = "application/msgpack"
TEXT = "text/plain"
BYTES = "application/octet-stream"
PROTOBUF = "application/protobuf"

#: Values and keys in a body, where the configuration does not say.
MAX_ITEMS = 1_000_000


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    name: str
    kind: str
    default: t.Any
    doc: str
    check: Callable[[t.Any], t.Any]
    #: Whether a password may be in it, so that no error shows it.
    secret: bool = False

    @property
    def key(self) -> str:
        """The name in ``app.config``."""
        return PREFIX + self.name.upper()

    def read(self, config: Mapping[str, t.Any]) -> t.Any:
        """The checked value from ``config``, or the default."""
        value = config.get(self.key)
        if value is None:
            return self.check(self.default) if self.default is not None else None
        try:
            return self.check(value)
        except (TypeError, ValueError) as error:
            kind = type(value).__name__
            shown = f"of the type '{kind}'" if self.secret else quote(value)
            raise ConfigurationError(
                f"'{self.key}' must be {self.kind}, not {shown}"
                f"{_because(error)}. {self.doc}"
            ) from error


def _because(error: Exception) -> str:
    text = str(error).rstrip(".")
    return f" ({text})" if text else ""


def _text(value: t.Any) -> str:
    if not isinstance(value, str):
        raise TypeError("write a text in quotes")
    return value


def _affix(value: t.Any) -> str:
    """A text that may be a part of a name on a broker."""
    text = _text(value)
    if problem := find_name_problem(text):
        raise ValueError(problem)
    return text


def _prefix(value: t.Any) -> str:
    if isinstance(value, str) and value.startswith("amq."):
        raise ValueError("RabbitMQ keeps 'amq.' to itself")
    return _affix(value)


def _name(value: t.Any) -> str:
    if not value:
        raise ValueError("it must not be empty")
    return _affix(value)


def _seconds(low: float, high: float) -> Callable[[t.Any], float]:
    return lambda value: float(parse_seconds(value, low, high))


def _share(value: t.Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("write a number, such as 0.005")
    if not 0.001 <= value <= 1:
        raise ValueError("it must be from 0.001 to 1")
    return float(value)


def _whole(low: int, high: int) -> Callable[[t.Any], int]:
    def check(value: t.Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError("write a whole number, without quotes or a unit")
        if not low <= value <= high:
            raise ValueError(f"it must be from {low} to {high}")
        return value

    return check


def _one_of(*choices: str) -> Callable[[t.Any], str]:
    def check(value: t.Any) -> str:
        if value not in choices:
            raise ValueError("it must be one of: " + ", ".join(choices))
        return t.cast(str, value)

    return check


def _http_url(value: t.Any) -> str:
    text = _text(value)
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("it must begin with http:// or https:// and a host")
    return text


def _mapping(value: t.Any) -> dict[str, t.Any]:
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
        raise TypeError('write a mapping of texts to values: {"name": …}')
    return dict(value)


def _content_types(value: t.Any) -> tuple[str, ...]:
    """Refuse what no message's content type can equal: ``json``, ``text/*``."""
    is_list = isinstance(value, Iterable) and not isinstance(value, str)
    types = tuple(value) if is_list else ()
    if not types or not all(map(_is_content_type, types)):
        raise TypeError('write a list of them, such as ["application/json"]')
    return types


def _is_content_type(value: t.Any) -> bool:
    return isinstance(value, str) and bool(_CONTENT_TYPE.match(value))


def _policy(value: t.Any) -> RetryPolicy:
    if isinstance(value, RetryPolicy):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f'write {{"max_attempts": {_attempts(value)}}}')
    return RetryPolicy.from_mapping(_mapping(value))


def _attempts(value: t.Any) -> str:
    """What may be meant by a policy that is no mapping: a number, or no retries."""
    is_number = isinstance(value, int) and value is not True
    return str(max(value, 1) if is_number else RetryPolicy().max_attempts)


def _policies(value: t.Any) -> dict[str, RetryPolicy]:
    return {name: _policy(options) for name, options in _mapping(value).items()}


def _consumers(value: t.Any) -> dict[str, dict[str, t.Any]]:
    return {
        name: {
            key: _option(name, key, item)
            for key, item in _mapping(options).items()
            if item is not None
        }
        for name, options in _mapping(value).items()
    }


def _option(consumer: str, key: str, value: t.Any) -> t.Any:
    if key not in CONSUMER_OPTIONS:
        raise ValueError(
            f"{quote(consumer)} has no option {quote(key)}"
            f"{suggest(key, CONSUMER_OPTIONS)}"
            f" There are: {', '.join(CONSUMER_OPTIONS)}"
        )
    try:
        return check_option(key, value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"'{key}' of {quote(consumer)} cannot be {quote(value)}{_because(error)}"
        ) from error


CONCURRENCY = _whole(1, 10_000)
PREFETCH = _whole(1, 65_535)
ORDERING = _one_of("none", "key", "partition")
TIMEOUT = _seconds(0.001, 604_800)


def check_option(key: str, value: t.Any) -> t.Any:
    """One option of a consumer, checked alike for decorators and configuration.

    :raises TypeError: if it is of the wrong type.
    :raises ValueError: if it is out of its range.
    """
    return CONSUMER_OPTIONS[key](value)


def _enabled(value: t.Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("it must be True or False")
    return value


def _policy_or_name(value: t.Any) -> RetryPolicy | str:
    return value if isinstance(value, str) else _policy(value)


#: The options of one consumer in ``QCONSUME_CONSUMERS``, and their checks.
CONSUMER_OPTIONS: dict[str, Callable[[t.Any], t.Any]] = {
    "concurrency": CONCURRENCY,
    "enabled": _enabled,
    "ordering": ORDERING,
    "prefetch": PREFETCH,
    "retry": _policy_or_name,
    "timeout": TIMEOUT,
}


TABLE: tuple[Setting, ...] = (
    Setting(
        "broker_url",
        "a URL",
        None,
        "Where the broker is: amqp://…, redis://…, redis-streams://…, kafka://…, or"
        " memory:// for trying out.",
        _text,
        secret=True,
    ),
    Setting(
        "transport_options",
        "a mapping",
        {},
        "Options handed to kombu's transport as they are. For Redis Streams also:"
        " group, body_field.",
        _mapping,
        secret=True,
    ),
    Setting(
        "exchange",
        "a text",
        "qconsume",
        "The topic exchange that the app publishes to and its queues are bound to; its"
        " name on the broker begins with ``QCONSUME_QUEUE_PREFIX``.",
        _name,
    ),
    Setting(
        "queue_prefix",
        "a text",
        "",
        "Put before every name of the app on the broker (exchange, queues, wait queues,"
        " keys, topics, groups), to let apps or stages share it. Code leaves it out."
        " Queues and exchanges given as kombu's objects keep their names.",
        _prefix,
    ),
    Setting(
        "queue_type",
        "'quorum' or 'classic'",
        "quorum",
        "The type of the queues declared on RabbitMQ.",
        _one_of("quorum", "classic"),
    ),
    Setting(
        "accept",
        "a list of content types",
        None,
        "The content types that are taken; others become dead letters. Unless set, they"
        " are JSON, msgpack, protobuf, plain text, octet streams and those of the app's"
        " own formats. A body of a type that has no format is given to the handler as"
        " bytes.",
        _content_types,
    ),
    Setting(
        "concurrency",
        "a whole number",
        10,
        "How many messages each consumer handles at once in one process.",
        CONCURRENCY,
    ),
    Setting(
        "prefetch",
        "a whole number",
        None,
        "How many unsettled messages each consumer holds; twice its concurrency if"
        " unset.",
        PREFETCH,
    ),
    Setting(
        "ordering",
        "'none', 'key' or 'partition'",
        "none",
        "Which messages are handled strictly one after the other, a retry holding back"
        " what is behind it: none, those of one key, or those of one partition. Where"
        " the broker cannot, only 'none' is taken.",
        ORDERING,
    ),
    Setting(
        "timeout",
        "seconds",
        600.0,
        "How long a handler may take.",
        TIMEOUT,
    ),
    Setting(
        "retry",
        "a retry policy's arguments",
        {},
        "The retry policy of consumers that have none of their own.",
        _policy,
    ),
    Setting(
        "retry_policies",
        "a mapping of names to retry policies' arguments",
        {},
        'Retry policies by name, for retry="name".',
        _policies,
    ),
    Setting(
        "delivery_limit",
        "a whole number",
        3,
        "How often a message may be started that kills its process each time; then it"
        " is a dead letter.",
        _whole(2, 1_000),
    ),
    Setting(
        "dead_letter_ttl",
        "seconds",
        7 * 86_400.0,
        "How long dead letters are kept.",
        _seconds(1, 365 * 86_400),
    ),
    Setting(
        "shutdown_timeout",
        "seconds",
        25.0,
        "How long a stop waits for the handlers that are running.",
        _seconds(0, 86_400),
    ),
    Setting(
        "max_message_size",
        "bytes",
        16 * 1024 * 1024,
        "The largest body that is decoded, and the size that a compressed one may grow"
        " to; larger ones become dead letters.",
        _whole(1, 2**31),
    ),
    Setting(
        "max_items",
        "a whole number",
        MAX_ITEMS,
        "How many values, keys included, a body may hold; those with more become dead"
        " letters before they are decoded.",
        _whole(1, 2**31),
    ),
    Setting(
        "declare",
        "'auto', 'passive' or 'never'",
        "auto",
        "Whether queues are declared, only checked, or left alone.",
        _one_of("auto", "passive", "never"),
    ),
    Setting(
        "publish_timeout",
        "seconds",
        10.0,
        "How long a publish waits for the broker, reconnecting included. A process that"
        " has not reached the broker yet waits for 'QCONSUME_AWAY_AFTER' at the most.",
        _seconds(0.001, 3_600),
    ),
    Setting(
        "away_after",
        "seconds",
        5.0,
        "After how long without an answer to anybody who publishes the broker counts as"
        " away: publishing then fails at once, but for one attempt at a time.",
        _seconds(0.001, 86_400),
    ),
    Setting(
        "management_url",
        "a URL",
        None,
        "RabbitMQ only: where its management plugin answers"
        " (http://user:password@host:15672), so that 'status' can tell what AMQP does"
        " not: what workers have in hand, and retries that a full queue refuses.",
        _http_url,
        secret=True,
    ),
    Setting(
        "heartbeat",
        "seconds",
        30.0,
        "How often broker and worker show each other that they live; a silent"
        " connection is given up after two of these.",
        _seconds(1, 600),
    ),
    Setting(
        "lease",
        "seconds",
        60.0,
        "On Redis and Kafka: how long a message stays with a worker that no longer"
        " answers, before another one gets it. On Kafka at least 6.",
        _seconds(1, 86_400),
    ),
    Setting(
        "blocked_after",
        "seconds",
        10.0,
        "After how long a handler that lets no other greenlet run is logged, with its"
        " stack, and the check for life fails.",
        _seconds(0.001, 3_600),
    ),
    Setting(
        "start_timeout",
        "seconds",
        120.0,
        "After how long a worker whose start does not end (a ``before_worker`` hook or,"
        " with ``--processes``, an import) is logged, and the check for life fails.",
        _seconds(0.001, 86_400),
    ),
    Setting(
        "stalled_after",
        "seconds",
        120.0,
        "After how long a consumer that reads nothing although messages wait, or cannot"
        " settle what it has handled, is logged and shown by the checks.",
        _seconds(0.001, 86_400),
    ),
    Setting(
        "log_tracebacks",
        "'first', 'always' or 'never'",
        "first",
        "Which failures that are retried are logged with their tracebacks: the first of"
        " each error, all, or none. Errors of one consumer and one class that the same"
        " line raised are the same. A dead letter has its traceback, but with 'never'.",
        _one_of("first", "always", "never"),
    ),
    Setting(
        "hub_latency",
        "seconds",
        0.01,
        "Where a web server shares the process: how late the hub may be, on average,"
        " before messages are begun less often. With 0 they are begun at once, whatever"
        " the site does.",
        _seconds(0, 10),
    ),
    Setting(
        "least_share",
        "a number",
        0.005,
        "Where a web server shares the process: the part of the time in which messages"
        " may be begun however busy the site is.",
        _share,
    ),
    Setting(
        "consumers",
        "a mapping of consumers' names to their options",
        {},
        "Options for single consumers; they beat the decorator's:"
        ' {"orders.bill": {"concurrency": 50, "retry": "patient"}}.',
        _consumers,
    ),
)

#: How variables of the environment begin that 'from_prefixed_env' reads for us.
_VARIABLE = "FLASK_" + PREFIX

_KEYS = {setting.key for setting in TABLE}


@dataclass(frozen=True)
class Settings:
    """The configuration of one app, checked; its rows are in ``TABLE``."""

    # Both may hold passwords, which a traceback's locals or a log must not show.
    broker_url: str = field(repr=False)
    transport_options: dict[str, t.Any] = field(repr=False)
    #: Its name on the broker, with the prefix.
    exchange: str
    queue_prefix: str
    queue_type: str
    accept: tuple[str, ...] | None
    concurrency: int
    prefetch: int | None
    ordering: str
    timeout: float
    retry: RetryPolicy
    retry_policies: dict[str, RetryPolicy]
    delivery_limit: int
    dead_letter_ttl: float
    shutdown_timeout: float
    max_message_size: int
    max_items: int
    declare: str
    publish_timeout: float
    away_after: float
    management_url: str | None = field(repr=False)
    heartbeat: float
    lease: float
    blocked_after: float
    start_timeout: float
    stalled_after: float
    log_tracebacks: str
    hub_latency: float
    least_share: float
    consumers: dict[str, dict[str, t.Any]]

    @classmethod
    def from_config(cls, config: Mapping[str, t.Any]) -> Settings:
        """Read the ``QCONSUME_*`` keys of ``app.config``.

        :raises ConfigurationError: for an unknown key, a wrong value or a missing URL.
        """
        for key in config:
            if isinstance(key, str) and key.startswith(PREFIX) and key not in _KEYS:
                raise ConfigurationError(
                    f"There is no configuration key {quote(key)}{suggest(key, _KEYS)}"
                )
        values = {setting.name: setting.read(config) for setting in TABLE}
        if not values["broker_url"]:
            raise ConfigurationError(_no_url(find_unread_variables(config, os.environ)))
        values["exchange"] = values["queue_prefix"] + values["exchange"]
        return cls(**values)

    @property
    def bare_exchange(self) -> str:
        """The exchange without the prefix: what it was called by earlier versions."""
        return self.exchange.removeprefix(self.queue_prefix)


def find_unread_variables(
    config: Mapping[str, t.Any], environ: Mapping[str, str]
) -> list[str]:
    """Variables of the environment, of which ``config`` has something else.

    It has what they say after ``app.config.from_prefixed_env()``.
    """
    return [
        name
        for name, text in sorted(environ.items())
        if name.startswith(_VARIABLE) and not _is_read(config, name, text)
    ]


def _is_read(config: Mapping[str, t.Any], name: str, text: str) -> bool:
    key, nested, _ = name.removeprefix("FLASK_").partition("__")
    if nested:  # A part of a mapping.
        return key in config
    try:
        value = json.loads(text)
    except ValueError:
        value = text  # As Flask does.
    return key in config and config[key] in (value, text)


def _no_url(forgotten: Sequence[str]) -> str:
    if _VARIABLE + "BROKER_URL" in forgotten:
        return (
            f"The environment has '{_VARIABLE}BROKER_URL', which the app does not read:"
            " call 'app.config.from_prefixed_env()' before 'QConsume.init_app'."
        )
    if PREFIX + "BROKER_URL" in os.environ:
        return (
            f"The environment has '{PREFIX}BROKER_URL', which Flask does not read: call"
            f" it '{_VARIABLE}BROKER_URL', and have the app call"
            " 'app.config.from_prefixed_env()' before 'QConsume.init_app'."
        )
    return (
        "'QCONSUME_BROKER_URL' must be set before 'QConsume.init_app': the address of"
        " your broker, such as 'amqp://guest:guest@localhost//' or"
        " 'redis://localhost/0'. Use 'memory://' to try things out without one."
    )


def suggest(word: str, known: t.Iterable[str]) -> str:
    """The end of a sentence: ``; did you mean ...?``, or a dot if no word is close."""
    close = get_close_matches(word, sorted(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else "."
