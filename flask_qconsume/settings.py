"""The configuration: one table of keys, read once from ``app.config``.

No other module reads ``app.config``. :data:`TABLE` lists each key with its type,
default and description; the reference page is rendered from it. Knows no Flask:
``app.config`` is a mapping.
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

#: The broker that errors offer to apps without one.
FILE_BROKER = "'sqlite:///qconsume.db', a file (pip install 'Flask-QConsume[sql]')"

#: Type and subtype, without wildcards; parameters may follow.
_CONTENT_TYPE = re.compile(r"[^\s/*;]+/[^\s/*;]+\s*(;|$)")

JSON = "application/json"
MSGPACK = "application/msgpack"
TEXT = "text/plain"
BYTES = "application/octet-stream"
PROTOBUF = "application/protobuf"

#: How many values and keys a body may have, unless configured.
MAX_ITEMS = 1_000_000


@dataclass(frozen=True)
class Setting:
    """One configuration key: a row of :data:`TABLE`."""

    name: str
    kind: str
    default: t.Any
    doc: str
    check: Callable[[t.Any], t.Any]
    #: True if the value may hold a password, so that errors do not show it.
    secret: bool = False

    @property
    def key(self) -> str:
        """The key in ``app.config``."""
        return PREFIX + self.name.upper()

    def read(self, config: Mapping[str, t.Any]) -> t.Any:
        """Return the checked value from ``config``, or the default.

        :raises ConfigurationError: for a wrong value.
        """
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
                f"{_explain(error)}. {self.doc}"
            ) from error


def _explain(error: Exception) -> str:
    text = str(error).rstrip(".")
    return f" ({text})" if text else ""


def _check_text(value: t.Any) -> str:
    if not isinstance(value, str):
        raise TypeError("write a text in quotes")
    return value


def _check_name_part(value: t.Any) -> str:
    text = _check_text(value)
    if problem := find_name_problem(text):
        raise ValueError(problem)
    return text


def _check_prefix(value: t.Any) -> str:
    if isinstance(value, str) and value.startswith("amq."):
        raise ValueError("RabbitMQ keeps 'amq.' to itself")
    return _check_name_part(value)


def _check_name(value: t.Any) -> str:
    if not value:
        raise ValueError("it must not be empty")
    return _check_name_part(value)


def _seconds(low: float, high: float) -> Callable[[t.Any], float]:
    return lambda value: float(parse_seconds(value, low, high))


def _check_share(value: t.Any) -> float:
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


def _check_metrics(value: t.Any) -> bool | str:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise TypeError("write True, False or the path of a folder in quotes")
    if not os.path.isabs(value):
        raise ValueError("the path of a folder must begin with '/'")
    return value


def _check_tracing(value: t.Any) -> bool | str:
    if value is True or value is False or value == "auto":
        return t.cast("bool | str", value)
    raise ValueError("it must be 'auto', True or False")


def _check_http_url(value: t.Any) -> str:
    text = _check_text(value)
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("it must begin with http:// or https:// and a host")
    return text


def _check_mapping(value: t.Any) -> dict[str, t.Any]:
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
        raise TypeError('write a mapping of texts to values: {"name": …}')
    return dict(value)


def _check_content_types(value: t.Any) -> tuple[str, ...]:
    """Refuse texts that are not content types, such as ``json`` and ``text/*``."""
    is_list = isinstance(value, Iterable) and not isinstance(value, str)
    types = tuple(value) if is_list else ()
    if not types or not all(map(_is_content_type, types)):
        raise TypeError('write a list of them, such as ["application/json"]')
    return types


def _is_content_type(value: t.Any) -> bool:
    return isinstance(value, str) and bool(_CONTENT_TYPE.match(value))


def _check_policy(value: t.Any) -> RetryPolicy:
    if isinstance(value, RetryPolicy):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f'write {{"max_attempts": {_guess_attempts(value)}}}')
    return RetryPolicy.from_mapping(_check_mapping(value))


def _guess_attempts(value: t.Any) -> str:
    is_number = isinstance(value, int) and value is not True
    return str(max(value, 1) if is_number else RetryPolicy().max_attempts)


def _check_policies(value: t.Any) -> dict[str, RetryPolicy]:
    return {
        name: _check_named_policy(name, options)
        for name, options in _check_mapping(value).items()
    }


def _check_named_policy(name: str, value: t.Any) -> RetryPolicy:
    try:
        return _check_policy(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{quote(name)} cannot be {quote(value)}{_explain(error)}"
        ) from error


def _check_consumers(value: t.Any) -> dict[str, dict[str, t.Any]]:
    return {
        name: {
            key: _check_option(name, key, item)
            for key, item in _check_mapping(options).items()
            if item is not None
        }
        for name, options in _check_mapping(value).items()
    }


def _check_option(consumer: str, key: str, value: t.Any) -> t.Any:
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
            f"'{key}' of {quote(consumer)} cannot be {quote(value)}{_explain(error)}"
        ) from error


CONCURRENCY = _whole(1, 10_000)
PREFETCH = _whole(1, 65_535)
ORDERING = _one_of("none", "key", "partition")
TIMEOUT = _seconds(0.001, 604_800)


def check_option(key: str, value: t.Any) -> t.Any:
    """Check one option of a consumer, from a decorator or from configuration.

    :raises TypeError: for a value of a wrong type.
    :raises ValueError: for a value out of range.
    """
    return CONSUMER_OPTIONS[key](value)


def _check_enabled(value: t.Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("it must be True or False")
    return value


def _check_policy_or_name(value: t.Any) -> RetryPolicy | str:
    return value if isinstance(value, str) else _check_policy(value)


#: The options of one consumer in ``QCONSUME_CONSUMERS``, and their checks.
CONSUMER_OPTIONS: dict[str, Callable[[t.Any], t.Any]] = {
    "concurrency": CONCURRENCY,
    "enabled": _check_enabled,
    "ordering": ORDERING,
    "prefetch": PREFETCH,
    "retry": _check_policy_or_name,
    "timeout": TIMEOUT,
}


TABLE: tuple[Setting, ...] = (
    Setting(
        "broker_url",
        "a URL",
        None,
        "The broker's address: sqlite:///…, postgresql://…, amqp://…, redis://…,"
        " redis-streams://…, kafka://…, or memory:// in tests.",
        _check_text,
        secret=True,
    ),
    Setting(
        "transport_options",
        "a mapping",
        {},
        "Options of the broker's client, and of this extension for the broker: for"
        " example 'wait_replicas' on Redis, 'group' and 'body_field' on Redis Streams,"
        " and 'partitions' on Kafka.",
        _check_mapping,
        secret=True,
    ),
    Setting(
        "exchange",
        "a text",
        "qconsume",
        "The topic exchange to which the app publishes, and to which its queues are"
        " bound. Its name on the broker begins with ``QCONSUME_QUEUE_PREFIX``.",
        _check_name,
    ),
    Setting(
        "queue_prefix",
        "a text",
        "",
        "The prefix of all names of the app on the broker (exchange, queues, wait"
        " queues, keys, topics, groups), so that apps or stages can share a broker."
        " Code uses the names without the prefix. Queues and exchanges that are given"
        " as kombu's objects keep their names.",
        _check_prefix,
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
        "The accepted content types; messages of any other type become dead letters."
        " Unless set, these are JSON, msgpack, protobuf, plain text, octet streams and"
        " the types of the app's own formats. The handler gets bytes if an accepted"
        " type has no format.",
        _check_content_types,
    ),
    Setting(
        "concurrency",
        "a whole number",
        10,
        "The number of messages that each consumer handles at once in one process.",
        CONCURRENCY,
    ),
    Setting(
        "prefetch",
        "a whole number",
        None,
        "The number of unsettled messages that each consumer holds in one process;"
        " twice its concurrency unless set.",
        PREFETCH,
    ),
    Setting(
        "ordering",
        "'none', 'key' or 'partition'",
        "none",
        "The messages that are handled strictly one after the other, so that a retry"
        " holds back the messages behind it: none, those of one key, or those of one"
        " partition. A broker that cannot keep an order takes only 'none'.",
        ORDERING,
    ),
    Setting(
        "timeout",
        "seconds",
        600.0,
        "The time limit of a handler.",
        TIMEOUT,
    ),
    Setting(
        "retry",
        "a retry policy's arguments",
        {},
        "The retry policy of consumers without one of their own.",
        _check_policy,
    ),
    Setting(
        "retry_policies",
        "a mapping of names to retry policies' arguments",
        {},
        'Retry policies by name, for retry="name".',
        _check_policies,
    ),
    Setting(
        "delivery_limit",
        "a whole number",
        3,
        "The number of times that a message is started although its process crashes"
        " each time; then it becomes a dead letter.",
        _whole(2, 1_000),
    ),
    Setting(
        "dead_letter_ttl",
        "seconds",
        7 * 86_400.0,
        "The time for which dead letters are kept.",
        _seconds(1, 365 * 86_400),
    ),
    Setting(
        "shutdown_timeout",
        "seconds",
        25.0,
        "The time for which a stop waits for running handlers.",
        _seconds(0, 86_400),
    ),
    Setting(
        "max_message_size",
        "bytes",
        16 * 1024 * 1024,
        "The size of the largest body that is decoded, before and after decompression;"
        " messages with larger bodies become dead letters.",
        _whole(1, 2**31),
    ),
    Setting(
        "max_items",
        "a whole number",
        MAX_ITEMS,
        "The largest number of values in a body, keys included; messages with more"
        " values become dead letters before they are decoded.",
        _whole(1, 2**31),
    ),
    Setting(
        "declare",
        "'auto', 'passive' or 'never'",
        "auto",
        "The treatment of queues before they are used: declare them (auto), check that"
        " they exist (passive), or neither (never).",
        _one_of("auto", "passive", "never"),
    ),
    Setting(
        "publish_timeout",
        "seconds",
        10.0,
        "The time for which a publish waits for the broker, reconnecting included. A"
        " process that has not reached the broker yet waits 'QCONSUME_AWAY_AFTER' at"
        " the most.",
        _seconds(0.001, 3_600),
    ),
    Setting(
        "away_after",
        "seconds",
        5.0,
        "The time without any answer to a publish after which the broker counts as"
        " away. Publishing then fails at once, except for one attempt at a time.",
        _seconds(0.001, 86_400),
    ),
    Setting(
        "management_url",
        "a URL",
        None,
        "RabbitMQ only: the address of its management plugin"
        " (http://user:password@host:15672). With it, 'status' shows facts that AMQP"
        " cannot tell: the messages that workers hold, and retries that a full queue"
        " refuses.",
        _check_http_url,
        secret=True,
    ),
    Setting(
        "heartbeat",
        "seconds",
        30.0,
        "The interval of heartbeats between broker and worker; a connection that is"
        " silent for two intervals is closed.",
        _seconds(1, 600),
    ),
    Setting(
        "lease",
        "seconds",
        60.0,
        "Databases, Redis and Kafka: the time after which the messages of a worker that"
        " no longer answers go to another worker. On Kafka at least 6.",
        _seconds(1, 86_400),
    ),
    Setting(
        "blocked_after",
        "seconds",
        10.0,
        "The time after which a handler that lets no other greenlet run is logged,"
        " with its stack, and the liveness check fails.",
        _seconds(0.001, 3_600),
    ),
    Setting(
        "start_timeout",
        "seconds",
        120.0,
        "The time after which a worker that is still starting (in a ``before_worker``"
        " hook or, with ``--processes``, in an import) is logged, and the liveness"
        " check fails.",
        _seconds(0.001, 86_400),
    ),
    Setting(
        "stalled_after",
        "seconds",
        120.0,
        "The time after which a consumer that reads nothing although messages wait, or"
        " that cannot settle its messages, is logged and shown by the checks.",
        _seconds(0.001, 86_400),
    ),
    Setting(
        "log_tracebacks",
        "'first', 'always' or 'never'",
        "first",
        "The retried failures that are logged with tracebacks: the first of each"
        " error, all, or none. Errors of one consumer and one class that the same line"
        " raised are the same error. Dead letters are logged with tracebacks, except"
        " with 'never'.",
        _one_of("first", "always", "never"),
    ),
    Setting(
        "metrics",
        "True, False or the path of a folder",
        False,
        "Count messages for Prometheus; needs the package 'prometheus-client'. With"
        " True, the processes of 'flask qconsume run --processes' and the workers of"
        " gunicorn show their sums, and any other process its own counts. Processes"
        " that were started apart from each other show their sums if they share a"
        " folder of the app's own, which should be in memory (/dev/shm).",
        _check_metrics,
    ),
    Setting(
        "tracing",
        "'auto', True or False",
        "auto",
        "OpenTelemetry's spans of published, handled and settled messages. With"
        " 'auto', they are created where the package 'opentelemetry-api' is installed"
        " and an SDK is set up. With True, a missing package is an error, and a worker"
        " logs a missing SDK.",
        _check_tracing,
    ),
    Setting(
        "logging",
        "'context', 'json' or 'off'",
        "context",
        "The message on log records: with 'context', all records that are logged while"
        " a message is handled have its consumer, id and attempt as attributes. With"
        " 'json', 'flask qconsume run' and gunicorn also write records as JSON, unless"
        " the app has configured handlers of its own. With 'off', records have no such"
        " attributes.",
        _one_of("context", "json", "off"),
    ),
    Setting(
        "hub_latency",
        "seconds",
        0.01,
        "If a web server shares the process: the mean lag of the event loop above"
        " which fewer messages are started. With 0, messages are started at once,"
        " however busy the web server is.",
        _seconds(0, 10),
    ),
    Setting(
        "least_share",
        "a number",
        0.005,
        "If a web server shares the process: the part of the time in which messages"
        " may be started, however busy the web server is.",
        _check_share,
    ),
    Setting(
        "consumers",
        "a mapping of consumers' names to their options",
        {},
        "Options for single consumers; they take precedence over the decorator's:"
        ' {"orders.bill": {"concurrency": 50, "retry": "patient"}}.',
        _check_consumers,
    ),
)

#: The prefix of environment variables that 'from_prefixed_env' reads.
_VARIABLE = "FLASK_" + PREFIX

_KEYS = {setting.key for setting in TABLE}


@dataclass(frozen=True)
class Settings:
    """The configuration of one app, checked; ``TABLE`` describes its attributes."""

    # Both may hold passwords, which tracebacks and logs must not show.
    broker_url: str = field(repr=False)
    transport_options: dict[str, t.Any] = field(repr=False)
    #: The exchange's name on the broker, its prefix included.
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
    metrics: bool | str
    tracing: bool | str
    logging: str
    hub_latency: float
    least_share: float
    consumers: dict[str, dict[str, t.Any]]
    #: The app's instance folder, to which a relative path in the URL of SQLite belongs.
    instance_path: str = ""

    @classmethod
    def from_config(
        cls, config: Mapping[str, t.Any], instance_path: str = ""
    ) -> Settings:
        """Read the ``QCONSUME_*`` keys of ``app.config``.

        :param instance_path: The app's instance folder.
        :raises ConfigurationError: for an unknown key, a wrong value or a missing URL.
        """
        for key in config:
            if isinstance(key, str) and key.startswith(PREFIX) and key not in _KEYS:
                raise ConfigurationError(
                    f"There is no configuration key {quote(key)}{suggest(key, _KEYS)}"
                )
        values = {setting.name: setting.read(config) for setting in TABLE}
        if not values["broker_url"]:
            raise ConfigurationError(
                _describe_missing_url(find_unread_variables(config, os.environ))
            )
        values["exchange"] = values["queue_prefix"] + values["exchange"]
        return cls(**values, instance_path=instance_path)

    @property
    def bare_exchange(self) -> str:
        """The exchange's name without the prefix, as earlier versions declared it."""
        return self.exchange.removeprefix(self.queue_prefix)


def find_unread_variables(
    config: Mapping[str, t.Any], environ: Mapping[str, str]
) -> list[str]:
    """Return the ``FLASK_QCONSUME_*`` environment variables that ``config`` lacks.

    The app should call ``app.config.from_prefixed_env()``, which adds them.
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


def _describe_missing_url(unread: Sequence[str]) -> str:
    if _VARIABLE + "BROKER_URL" in unread:
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
        "'QCONSUME_BROKER_URL' must be set before 'QConsume.init_app'. Without a"
        f" server, use {FILE_BROKER}; with a server, its address, such as"
        " 'amqp://guest:guest@localhost//' or 'redis://localhost/0'. Tests use"
        " 'memory://'."
    )


def suggest(word: str, known: t.Iterable[str]) -> str:
    """Return the end of an error's sentence: ``; did you mean …?``, or a dot."""
    close = get_close_matches(word, sorted(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else "."
