"""librdkafka's settings, made from the broker's URL and the options. No I/O.

The options have the names of kombu's own transport for Kafka. Settings that would break
a guarantee of this package are refused before anything connects.
"""

from __future__ import annotations

import math
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from urllib.parse import unquote
from urllib.parse import urlsplit

from ....errors import ConfigurationError
from ....settings import suggest
from ....text import quote

Config = dict[str, t.Any]

#: Options that are passed on to librdkafka; the last one to the topics that are
#: created.
COMMON = "kafka_common_config"
CONSUMER = "kafka_consumer_config"
PRODUCER = "kafka_producer_config"
ADMIN = "kafka_admin_config"
TOPIC = "kafka_topic_config"

#: The setting that says where a new group begins, and its values.
RESET = "auto.offset.reset"
_AT_THE_START = ("earliest", "smallest", "beginning")
_AT_THE_END = ("latest", "largest", "end")

#: Options of our own.
PARTITIONS = "partitions"
REPLICATION = "replication_factor"
TOPICS = "topics"
GRACE = "rebalance_grace"

_PASSED_ON = (COMMON, CONSUMER, PRODUCER, ADMIN, TOPIC)
#: All options.
OPTIONS = (*_PASSED_ON, PARTITIONS, REPLICATION, TOPICS, GRACE)

_DEFAULT_PORT = 9092
_SCHEMES = ("kafka", "kafkas")

#: Types of values that librdkafka accepts, besides functions.
_VALUE_TYPES = (str, int, float, bool, type(None))

#: Settings that are fixed, why, and which values are accepted nevertheless.
_FIXED: dict[str, tuple[str, tuple[str, ...]]] = {
    "bootstrap.servers": ("the brokers are those of the URL", ()),
    "group.id": ("the group is the queue", ()),
    "group.protocol": (
        "only this protocol tells a client before its partitions move",
        ("classic",),
    ),
    "enable.auto.commit": ("only what was handled is committed", ("false",)),
    "enable.auto.offset.store": ("only what was handled is committed", ("false",)),
    "enable.idempotence": ("what is sent again must not come twice", ("true",)),
    "acks": ("a publish is confirmed by all replicas in sync", ("all", "-1")),
    "request.required.acks": ("use 'acks'", ("all", "-1")),
    "transactional.id": ("there are no transactions here", ()),
    "enable.partition.eof": ("the end of a partition is not a message", ("false",)),
}

#: Clients reconnect soon after a broker has returned.
_COMMON_SETTINGS: Config = {
    "log_level": 0,  # Errors are raised or reported; librdkafka prints nothing.
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1_000,
    "socket.keepalive.enable": True,
    "socket.nagle.disable": True,
}

_CONSUMER_SETTINGS: Config = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    RESET: "earliest",
    "partition.assignment.strategy": "cooperative-sticky",
    "allow.auto.create.topics": False,
    # During a rebalance nothing can be committed, and members learn of it by a
    # heartbeat.
    "heartbeat.interval.ms": 1_000,
    # The client's own buffer, per consumer; librdkafka's default is 64 MiB.
    "queued.max.messages.kbytes": 16_384,
}

_PRODUCER_SETTINGS: Config = {
    "enable.idempotence": True,
    "acks": "all",
    # Callers wait for each record; records of several callers share a request.
    "linger.ms": 0.5,
    # The topic limits the size of records; the client does not know that limit.
    "message.max.bytes": 1_000_000_000,
}


@dataclass(frozen=True)
class KafkaConfig:
    """librdkafka's settings for one app, and the options of this package."""

    #: Settings of all clients. They contain passwords, so they are never shown.
    common: Config = field(repr=False)
    options: Mapping[str, t.Any] = field(repr=False)
    #: Number of partitions of topics that are created.
    partitions: int = 8
    #: Number of replicas of their partitions; -1 is the cluster's default.
    replication_factor: int = -1
    #: Numbers of partitions of single topics.
    topics: Mapping[str, int] = field(default_factory=dict)
    #: Seconds that a partition which is taken away waits for running handlers.
    grace: float = 10.0
    #: Seconds without an answer after which a connection is closed; if not set,
    #: librdkafka's default of 60.
    answer_timeout: float | None = None

    def consumer(self, group: str, session_timeout: float | None = None) -> Config:
        """Return librdkafka's settings for a consumer in a group.

        :param session_timeout: Seconds of silence after which other members get its
            partitions, unless the options say otherwise.
        """
        consumer_settings: Config = {}
        if session_timeout is not None:
            # A cluster's default limits are 6 s and 30 minutes.
            session = min(max(session_timeout, 6.0), 1_800.0)
            consumer_settings["session.timeout.ms"] = round(session * 1_000)
        return self._merge(_CONSUMER_SETTINGS | consumer_settings, CONSUMER) | {
            "group.id": group
        }

    def producer(self, timeout: float | None = None) -> Config:
        """Return librdkafka's settings for a producer.

        :param timeout: Seconds in which a record must be confirmed.
        """
        producer_settings: Config = {}
        if timeout is not None:
            producer_settings["message.timeout.ms"] = max(1, math.ceil(timeout * 1_000))
        return self._merge(_PRODUCER_SETTINGS | producer_settings, PRODUCER)

    def admin(self) -> Config:
        """Return librdkafka's settings for an admin client."""
        return self._merge({}, ADMIN)

    @property
    def topic(self) -> Config:
        """The Kafka settings with which topics are created."""
        topic_settings = self.options.get(TOPIC) or {}
        return {name: str(value) for name, value in topic_settings.items()}

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The hosts and ports of the cluster, from the broker's URL."""
        hosts_and_ports = [
            server.rpartition(":") for server in self._servers.split(",")
        ]
        return [(host.strip("[]"), int(port)) for host, _, port in hosts_and_ports]

    @property
    def begins_at_the_end(self) -> bool:
        """True if a new consumer group skips older records."""
        return str(self.consumer("")[RESET]).lower() in _AT_THE_END

    @property
    def _servers(self) -> str:
        return str(self.common["bootstrap.servers"])

    def _merge(self, own_settings: Config, option: str) -> Config:
        given_settings = self.options.get(option) or {}
        return {
            **_COMMON_SETTINGS,
            **self._sockets,
            **own_settings,
            **self.common,
            **given_settings,
        }

    @property
    def _sockets(self) -> Config:
        if self.answer_timeout is None:
            return {}
        # Within librdkafka's limits. A fetch waits for half a second by itself.
        return {
            "socket.timeout.ms": round(min(max(self.answer_timeout, 2), 300) * 1_000)
        }


def create_kafka_config(
    url: str, options: Mapping[str, t.Any], answer_timeout: float | None = None
) -> KafkaConfig:
    """Create the configuration from the broker's URL and the transport options.

    :param url: ``kafka://[user:password@]host[:port][,host2[:port]]``, or ``kafkas://``
        for TLS.
    :param answer_timeout: Seconds without an answer after which a connection is closed,
        unless the options say otherwise.
    :raises ConfigurationError: for an invalid setting, or one that would break a
        guarantee.
    """
    _check_options(options)
    common = _parse_url(url) | dict(options.get(COMMON) or {})
    return KafkaConfig(
        common=common,
        options=options,
        partitions=_read_whole(options, PARTITIONS, 8, 1),
        replication_factor=_read_whole(options, REPLICATION, -1, -1),
        topics=_read_partitions(options.get(TOPICS) or {}),
        grace=_read_seconds(options, GRACE, 10.0),
        answer_timeout=answer_timeout,
    )


def _parse_url(url: str) -> Config:
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES or not rest:
        raise ConfigurationError(
            "The address of a Kafka is kafka://host:9092, or kafkas:// for TLS; commas"
            " stand between several hosts."
        )
    parts = urlsplit("//" + rest)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError(
            "The address of a Kafka ends with its hosts; settings go into"
            " 'QCONSUME_TRANSPORT_OPTIONS'."
        )
    login, _, hosts = parts.netloc.rpartition("@")
    servers: Config = {"bootstrap.servers": _parse_hosts(hosts)}
    return servers | _create_security(scheme == "kafkas", login)


def _parse_hosts(hosts: str) -> str:
    return ",".join(_parse_host(host.strip()) for host in hosts.split(","))


def _parse_host(host: str) -> str:
    name, colon, port = host.rpartition(":")
    # The colons of an IPv6 address are in brackets.
    if not colon or port.endswith("]"):
        name, port = host, str(_DEFAULT_PORT)
    if not name or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ConfigurationError(
            f"{quote(host)} in the address of a Kafka is not host:port."
        )
    return f"{name}:{port}"


def _create_security(tls: bool, login: str) -> Config:
    if not login:
        return {"security.protocol": "SSL"} if tls else {}
    user, _, password = login.partition(":")
    return {
        "security.protocol": "SASL_SSL" if tls else "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": unquote(user),
        "sasl.password": unquote(password),
    }


def _check_options(options: Mapping[str, t.Any]) -> None:
    for name in options:
        if name not in OPTIONS:
            raise ConfigurationError(
                f"There is no transport option {quote(name)} for"
                f" Kafka{suggest(str(name), OPTIONS)}"
                f" The options are: {', '.join(OPTIONS)}."
            )
    for option in _PASSED_ON:
        given_settings = options.get(option) or {}
        if not isinstance(given_settings, Mapping):
            raise ConfigurationError(
                f"The transport option '{option}' is not a mapping."
            )
        if option != TOPIC:
            _check_settings(option, given_settings)


def _check_settings(option: str, given: Mapping[str, t.Any]) -> None:
    for name, value in given.items():
        plain = isinstance(value, _VALUE_TYPES) or callable(value)
        if not isinstance(name, str) or not plain:
            raise ConfigurationError(
                f"{quote(name)} in the transport option '{option}' must be a text, a"
                " number, True or False, by the name of a setting of librdkafka."
            )
        why, accepted = _FIXED.get(name, ("", ("",)))
        if why and str(value).lower() not in accepted:
            raise ConfigurationError(
                f"'{name}' in the transport option '{option}' cannot be set: {why}."
            )
        if name == RESET and str(value).lower() not in (*_AT_THE_START, *_AT_THE_END):
            raise ConfigurationError(
                f"'{name}' in the transport option '{option}' must be 'earliest' or"
                f" 'latest', not {quote(value)}: it says where a new group begins."
            )


def _read_whole(
    options: Mapping[str, t.Any], name: str, default: int, least: int
) -> int:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(
            f"The transport option '{name}' must be a whole number from {least} up, not"
            f" {quote(value)}."
        )
    return value


def _read_seconds(options: Mapping[str, t.Any], name: str, default: float) -> float:
    value = options.get(name, default)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= 3_600:
        raise ConfigurationError(
            f"The transport option '{name}' must be seconds from 0 to 3600, not"
            f" {quote(value)}."
        )
    return float(value)


def _read_partitions(given: t.Any) -> dict[str, int]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"The transport option '{TOPICS}' is not a mapping.")
    return {name: _read_whole(given, name, 1, 1) for name in given}
