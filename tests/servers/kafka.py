"""A Kafka of a test's own, broker and controller in one process; or three of them.

Its jars are in a folder of the user's, where the script ``get_kafka`` puts them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import pathlib
import re
import shutil
import typing as t
import uuid

from ..waiting import wait_for
from .ports import HOST
from .ports import free_port
from .server import Server

if t.TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

_HERE = pathlib.Path(__file__).parent

#: A small broker that starts fast, since most run for seconds only.
_JVM = (
    "-Xmx192m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)

_CONFIG = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "log.dirs": "data",
    "auto.create.topics.enable": "false",
    "num.partitions": "4",
    # Groups form at once, and dead members are noticed soon.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "offsets.topic.num.partitions": "2",
    "transaction.state.log.num.partitions": "2",
    # A killed broker may come back before it is noticed; it waits until then.
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "2000",
    "replica.lag.time.max.ms": "3000",
    "log.segment.delete.delay.ms": "1000",
    "log.initial.task.delay.ms": "1000",
    "log.cleaner.dedupe.buffer.size": "4194304",
    "log.index.size.max.bytes": "65536",
    "message.max.bytes": "4194304",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


class Kafka(Server):
    """A throwaway broker; ``config`` are lines of its ``server.properties``.

    With ``users`` or a ``certificate`` (a PEM file: key, then certificate) it listens
    on :attr:`secured_port` too, by SASL/PLAIN, TLS or both.

    :param voters: Of a cluster, the ports of all controllers; its own is ``voters[n]``.
    :param proxy_port: Where a proxy listens: whoever comes by :attr:`proxied_port` is
        told to go there.
    """

    title = "Kafka"

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        config: t.Mapping[str, str] | None = None,
        users: t.Mapping[str, str] | None = None,
        certificate: pathlib.Path | None = None,
        voters: t.Sequence[int] = (),
        n: int = 0,
        proxy_port: int = 0,
    ) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.secured_port = free_port()
        self.proxied_port = free_port()
        self.proxy_port = proxy_port
        self.n = n
        self._voters = voters or [free_port()]
        self._users = users or {}
        self._certificate = certificate
        self._config = dict(config or {})

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("java") is None:
            return "no java on the PATH"
        if not (_installed() / "complete").exists():
            return "its jars are not there: run tests/servers/get_kafka"
        found = importlib.util.find_spec("confluent_kafka")
        return None if found else "no confluent_kafka to speak to it"

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        return f"kafka://{self.address}"

    def admin(self) -> AdminClient:
        """Make an admin client."""
        return _admin(self.address)

    def create_topics(self, partitions: t.Mapping[str, int]) -> None:
        """Create topics, with ``partitions`` partitions each."""
        _create_topics(self.admin(), partitions)

    def topics(self) -> set[str]:
        """Return the names of all topics."""
        return set(self.admin().list_topics(timeout=10).topics)

    def delete_topics(self, prefix: str) -> None:
        """Delete each topic with this prefix, and with it after ``_qconsume.``."""
        _delete_topics(self.admin(), prefix)

    def _command(self) -> list[str]:
        self._format()
        lines = [f"{name}={value}\n" for name, value in self._settings().items()]
        (self.folder / "server.properties").write_text("".join(lines))
        installed = _installed()
        archive = f"-XX:SharedArchiveFile={installed}/classes.jsa"
        path = ["-cp", f"{installed}/libs/*"]
        return ["java", *_JVM, archive, *path, "kafka.Kafka", "server.properties"]

    def _format(self) -> None:
        """Format the data folder; Kafka's own tool takes 1.5 seconds longer."""
        data = self.folder / "data"
        if not data.exists():
            data.mkdir()
            shutil.copy(_installed() / "bootstrap.checkpoint", data)
            identity = f"cluster.id={'A' * 22}\nnode.id={self.n}\nversion=1\n"
            (data / "meta.properties").write_text(identity)

    def _settings(self) -> dict[str, str]:
        members = len(self._voters)
        voters = [f"{n}@{HOST}:{port}" for n, port in enumerate(self._voters)]
        listeners = self._listeners()
        listening = [f"{name}://{HOST}:{port}" for name, port in listeners.items()]
        told = {**listeners, "PROXIED": self.proxy_port}
        controller = f"CONTROLLER://{HOST}:{self._voters[self.n]}"
        return {
            **_CONFIG,
            "node.id": str(self.n),
            "controller.quorum.voters": ",".join(voters),
            "listeners": ",".join([*listening, controller]),
            "advertised.listeners": ",".join(
                # The host name of the certificate.
                f"{name}://{'localhost' if name == 'SECURED' else HOST}:{told[name]}"
                for name in listeners
            ),
            "default.replication.factor": str(members),
            "min.insync.replicas": str(members // 2 + 1),
            "offsets.topic.replication.factor": str(members),
            "transaction.state.log.replication.factor": str(members),
            "transaction.state.log.min.isr": str(members // 2 + 1),
            **self._security(),
            **self._config,
        }

    def _listeners(self) -> dict[str, int]:
        """The ports for clients by the name of the listener."""
        found = {"PLAINTEXT": self.port}
        if self._users or self._certificate:
            found["SECURED"] = self.secured_port
        if self.proxy_port:
            found["PROXIED"] = self.proxied_port
        return found

    def _security(self) -> dict[str, str]:
        protocol = "SASL_" * bool(self._users)
        protocol += "SSL" if self._certificate else "PLAINTEXT"
        known = " ".join(f'user_{user}="{word}"' for user, word in self._users.items())
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
        login = f"{plain} required {known};"
        return {
            "listener.security.protocol.map": (
                "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,"
                f"SECURED:{protocol}"
            ),
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.secured.plain.sasl.jaas.config": login,
            "listener.name.secured.ssl.keystore.type": "PEM",
            "listener.name.secured.ssl.keystore.location": str(self._certificate),
        }

    def _is_ready(self) -> bool:
        return _members(self.admin()) > 0


class KafkaCluster:
    """Three brokers, each topic on all of them; two are enough to go on.

    :param proxy_ports: One for each broker, where proxies before them listen.
    """

    def __init__(
        self, folder: pathlib.Path, size: int = 3, proxy_ports: t.Sequence[int] = ()
    ) -> None:
        voters = [free_port() for _ in range(size)]
        ports = proxy_ports or [0] * size
        self.brokers = [
            Kafka(folder / f"broker-{n}", voters=voters, n=n, proxy_port=port)
            for n, port in enumerate(ports)
        ]

    @property
    def address(self) -> str:
        return ",".join(each.address for each in self.brokers)

    @property
    def url(self) -> str:
        return f"kafka://{self.address}"

    def admin(self) -> AdminClient:
        """Make an admin client."""
        return _admin(self.address)

    def create_topics(self, partitions: t.Mapping[str, int]) -> None:
        """Create topics, with ``partitions`` partitions each."""
        _create_topics(self.admin(), partitions)

    def leaders(self, topic: str) -> dict[int, Kafka]:
        """Return the leading broker of each partition of a topic."""
        found = self.admin().list_topics(topic, timeout=10).topics[topic].partitions
        return {n: self.brokers[each.leader] for n, each in found.items()}

    def controller(self) -> Kafka:
        """Return the broker that is the active controller."""
        known = next(each for each in self.brokers if each.running)
        state = known.folder / "data" / "__cluster_metadata-0" / "quorum-state"
        return self.brokers[json.loads(state.read_text())["leaderId"]]

    def coordinator(self, group: str) -> Kafka:
        """Return the broker that coordinates a consumer group."""
        # Keep the client until the answer comes: its requests end with it.
        admin = self.admin()
        found = wait_for(lambda: _try_describe(admin, group), timeout=30)
        return self.brokers[found.coordinator.id]

    def start(self) -> None:
        """Start all brokers, and wait until they know each other."""
        # No broker answers before a majority runs.
        for each in self.brokers:
            each.begin()
        for each in self.brokers:
            each.await_ready()

    def close(self) -> None:
        for each in self.brokers:
            each.close()

    def __enter__(self) -> KafkaCluster:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def fresh_prefix() -> str:
    """Return a random prefix for one test's topics and queues."""
    return f"t{uuid.uuid4().hex[:8]}."


def version() -> str:
    """Return Kafka's version."""
    return _installed().name.partition("-")[2]


def _installed() -> pathlib.Path:
    """Return the folder of the jars."""
    pom = (_HERE / "pom.xml").read_text("utf-8")
    (version,) = re.findall("<kafka.version>(.*)</kafka.version>", pom)
    return pathlib.Path.home() / ".cache" / "flask_qconsume" / f"kafka-{version}"


def _admin(address: str) -> AdminClient:
    from confluent_kafka.admin import AdminClient

    quickly = {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 100}
    return AdminClient({"bootstrap.servers": address, "log_level": 0, **quickly})


def _members(admin: AdminClient) -> int:
    """Return the number of brokers that the answering broker knows."""
    from confluent_kafka import KafkaException

    try:
        return len(admin.list_topics(timeout=0.5).brokers)
    except KafkaException:
        return 0


def _create_topics(admin: AdminClient, partitions: t.Mapping[str, int]) -> None:
    from confluent_kafka.admin import NewTopic

    wanted = [NewTopic(name, number) for name, number in partitions.items()]
    for future in admin.create_topics(wanted).values():
        future.result(10)
    wait_for(lambda: all(_is_led(admin, name) for name in partitions))


def _try_describe(admin: AdminClient, group: str) -> t.Any:
    """Return the description of a group, or ``None`` without its coordinator."""
    from confluent_kafka import KafkaException

    try:
        return admin.describe_consumer_groups([group])[group].result(10)
    except KafkaException:
        return None


def _is_led(admin: AdminClient, topic: str) -> bool:
    """Return whether each partition of a topic has a leader."""
    found = admin.list_topics(topic, timeout=10).topics[topic]
    return bool(found.partitions) and all(
        each.leader >= 0 for each in found.partitions.values()
    )


def _delete_topics(admin: AdminClient, prefix: str) -> None:
    from confluent_kafka import KafkaException

    found = admin.list_topics(timeout=10).topics
    ours = [name for name in found if name.startswith((prefix, f"_qconsume.{prefix}"))]
    if ours:
        for future in admin.delete_topics(ours).values():
            with contextlib.suppress(KafkaException):  # Another process was faster.
                future.result(10)
