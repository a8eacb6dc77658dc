"""The address and the options of a Kafka, made into librdkafka's settings. No I/O.

The options have the names that kombu's own transport for Kafka gives them. What would
break our promises is refused before anything is connected.
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

#: Options that are passed on to librdkafka; the last one to the topics we create.
COMMON = "kafka_common_config"
CONSUMER = "kafka_consumer_config"
PRODUCER = "kafka_producer_config"
ADMIN = "kafka_admin_config"
TOPIC = "kafka_topic_config"

#: The setting of a consumer that says where a new group begins, and its values.
RESET = "auto.offset.reset"
_AT_THE_START = ("earliest", "smallest", "beginning")
_AT_THE_END = ("latest", "largest", "end")

#: Options of our own.
PARTITIONS = "partitions"
REPLICATION = "replication_factor"
TOPICS = "topics"
GRACE = "rebalance_grace"

_PASSED_ON = (COMMON, CONSUMER, PRODUCER, ADMIN, TOPIC)
#: All of them.
OPTIONS = (*_PASSED_ON, PARTITIONS, REPLICATION, TOPICS, GRACE)

_PORT = 9092
_SCHEMES = ("kafka", "kafkas")

#: What librdkafka takes, beside functions.
_VALUES = (str, int, float, bool, type(None))

#: What is ours to decide, why, and which values are taken nevertheless.
_FIXED: dict[str, tuple[str, tuple[str, ...]]] = {
    "bootstrap.servers": ("the brokers are those of the URL", ()),
    "group.id": ("the group is the queue", ()),
    "group.protocol": ("marks need a client that says when it lets go", ("classic",)),
    "enable.auto.commit": ("only what was handled is committed", ("false",)),
    "enable.auto.offset.store": ("only what was handled is committed", ("false",)),
    "enable.idempotence": ("what is sent again must not come twice", ("true",)),
    "acks": ("a publish is confirmed by all replicas in sync", ("all", "-1")),
    "request.required.acks": ("use 'acks'", ("all", "-1")),
    "transactional.id": ("there are no transactions here", ()),
    "enable.partition.eof": ("an end is no message", ("false",)),
}

#: It is brought back soon after a broker has returned.
_COMMON: Config = {
    "log_level": 0,  # Errors come as errors; nothing is printed beside them.
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1_000,
    "socket.keepalive.enable": True,
    "socket.nagle.disable": True,
}

_CONSUMER: Config = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    RESET: "earliest",
    "partition.assignment.strategy": "cooperative-sticky",
    "allow.auto.create.topics": False,
    # While members come and go nothing can be committed, and it is by their heartbeats
    # that the others learn of it.
    "heartbeat.interval.ms": 1_000,
    # What is fetched ahead counts for each consumer: 64 MiB is librdkafka's default.
    "queued.max.messages.kbytes": 16_384,
}

_PRODUCER: Config = {
    "enable.idempotence": True,
    "acks": "all",
    # Whoever publishes waits for the answer; those who do so at once share a request.
    "linger.ms": 0.5,
    # How large a record may be is for the topic to say, which the client knows not.
    "message.max.bytes": 1_000_000_000,
}


@dataclass(frozen=True)
class KafkaConfig:
    """What one app says of its Kafka."""

    #: What every client is given; has passwords in it, so it is never shown.
    common: Config = field(repr=False)
    options: Mapping[str, t.Any] = field(repr=False)
    #: How many partitions a topic gets that we create.
    partitions: int = 8
    #: On how many brokers each of them is; -1 is the cluster's default.
    replication_factor: int = -1
    #: Partitions of single topics.
    topics: Mapping[str, int] = field(default_factory=dict)
    #: Seconds that a partition which is taken away waits for what is being handled.
    grace: float = 10.0
    #: Seconds without an answer after which a connection is given up; librdkafka's
    #: own, a minute, unless it is said.
    silence: float | None = None

    def consumer(self, group: str, session_timeout: float | None = None) -> Config:
        """The settings of a member of a group.

        :param session_timeout: Seconds of silence after which others get its
            partitions, where the options say nothing else.
        """
        own: Config = {}
        if session_timeout is not None:
            # The cluster's limits, as Kafka sets them up, are 6 s and 30 minutes.
            silence = min(max(session_timeout, 6.0), 1_800.0)
            own["session.timeout.ms"] = round(silence * 1_000)
        return self._merged(_CONSUMER | own, CONSUMER) | {"group.id": group}

    def producer(self, timeout: float | None = None) -> Config:
        """The settings of a producer.

        :param timeout: Seconds in which a record must be confirmed.
        """
        own: Config = {}
        if timeout is not None:
            own["message.timeout.ms"] = max(1, math.ceil(timeout * 1_000))
        return self._merged(_PRODUCER | own, PRODUCER)

    def admin(self) -> Config:
        """The settings of a client for topics and groups."""
        return self._merged({}, ADMIN)

    @property
    def topic(self) -> Config:
        """The settings of a topic that we create."""
        given = self.options.get(TOPIC) or {}
        return {name: str(value) for name, value in given.items()}

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The hosts and ports by which the cluster is found."""
        found = [each.rpartition(":") for each in self._servers.split(",")]
        return [(host.strip("[]"), int(port)) for host, _, port in found]

    @property
    def begins_at_the_end(self) -> bool:
        """Whether a new group begins with what comes later."""
        return str(self.consumer("")[RESET]).lower() in _AT_THE_END

    @property
    def _servers(self) -> str:
        return str(self.common["bootstrap.servers"])

    def _merged(self, ours: Config, option: str) -> Config:
        given = self.options.get(option) or {}
        return {**_COMMON, **self._sockets, **ours, **self.common, **given}

    @property
    def _sockets(self) -> Config:
        if self.silence is None:
            return {}
        # As much as librdkafka takes. A fetch waits for half a second by itself.
        return {"socket.timeout.ms": round(min(max(self.silence, 2), 300) * 1_000)}


def kafka_config(
    url: str, options: Mapping[str, t.Any], silence: float | None = None
) -> KafkaConfig:
    """What a URL and the transport's options say.

    :param url: ``kafka://[user:password@]host[:port][,host2[:port]]``, or ``kafkas://``
        for TLS.
    :param silence: Seconds without an answer after which a connection is given up,
        where the options say nothing else.
    :raises ConfigurationError: if something of it makes no sense, or would break what
        is promised.
    """
    _check_options(options)
    common = _of_url(url) | dict(options.get(COMMON) or {})
    return KafkaConfig(
        common=common,
        options=options,
        partitions=_whole(options, PARTITIONS, 8, 1),
        replication_factor=_whole(options, REPLICATION, -1, -1),
        topics=_partitions(options.get(TOPICS) or {}),
        grace=_seconds(options, GRACE, 10.0),
        silence=silence,
    )


def _of_url(url: str) -> Config:
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
    found: Config = {"bootstrap.servers": _hosts(hosts)}
    return found | _security(scheme == "kafkas", login)


def _hosts(hosts: str) -> str:
    return ",".join(_host(each.strip()) for each in hosts.split(","))


def _host(host: str) -> str:
    name, colon, port = host.rpartition(":")
    # The colons of an IPv6 address are in brackets.
    if not colon or port.endswith("]"):
        name, port = host, str(_PORT)
    if not name or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ConfigurationError(
            f"{quote(host)} in the address of a Kafka is no host:port."
        )
    return f"{name}:{port}"


def _security(tls: bool, login: str) -> Config:
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
                f" There are: {', '.join(OPTIONS)}."
            )
    for option in _PASSED_ON:
        given = options.get(option) or {}
        if not isinstance(given, Mapping):
            raise ConfigurationError(f"The transport option '{option}' is no mapping.")
        if option != TOPIC:
            _check_settings(option, given)


def _check_settings(option: str, given: Mapping[str, t.Any]) -> None:
    for name, value in given.items():
        plain = isinstance(value, _VALUES) or callable(value)
        if not isinstance(name, str) or not plain:
            raise ConfigurationError(
                f"{quote(name)} in the transport option '{option}' must be a text, a"
                " number, True or False, by the name of a setting of librdkafka."
            )
        why, taken = _FIXED.get(name, ("", ("",)))
        if why and str(value).lower() not in taken:
            raise ConfigurationError(
                f"'{name}' in the transport option '{option}' cannot be set: {why}."
            )
        if name == RESET and str(value).lower() not in (*_AT_THE_START, *_AT_THE_END):
            raise ConfigurationError(
                f"'{name}' in the transport option '{option}' must be 'earliest' or"
                f" 'latest', not {quote(value)}: it says where a new group begins."
            )


def _whole(options: Mapping[str, t.Any], name: str, default: int, least: int) -> int:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(
            f"The transport option '{name}' must be a whole number from {least} up, not"
            f" {quote(value)}."
        )
    return value


def _seconds(options: Mapping[str, t.Any], name: str, default: float) -> float:
    value = options.get(name, default)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= 3_600:
        raise ConfigurationError(
            f"The transport option '{name}' must be seconds from 0 to 3600, not"
            f" {quote(value)}."
        )
    return float(value)


def _partitions(given: t.Any) -> dict[str, int]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"The transport option '{TOPICS}' is no mapping.")
    return {name: _whole(given, name, 1, 1) for name in given}
