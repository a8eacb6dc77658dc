"""The brokers of the contract suite: their records, and the servers behind them.

A place is what a case cannot reach through the package: it puts in messages of programs
that know nothing of us, cuts connections, and freezes or starts servers again.
"""

from __future__ import annotations

import abc
import typing as t
import uuid

import amqp
import confluent_kafka
import redis

from flask_qconsume.broker.capabilities import Capabilities
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.brokers.kafka.capabilities import CAPABILITIES as KAFKA
from flask_qconsume.brokers.memory.capabilities import CAPABILITIES as MEMORY
from flask_qconsume.brokers.rabbitmq.capabilities import CLASSIC
from flask_qconsume.brokers.rabbitmq.capabilities import QUORUM
from flask_qconsume.brokers.redis_lists.capabilities import CAPABILITIES as LISTS
from flask_qconsume.brokers.redis_streams.capabilities import CAPABILITIES as STREAMS

from ..servers import RedisCluster
from ..servers import Server
from ..servers import Vhost
from ..servers.ports import HOST
from ..servers.ports import free_port

Fixture = t.Callable[[str], t.Any]


class Place(abc.ABC):
    """One broker for one case.

    :param fixture: Gives the fixture of a name.
    :param breaks: Whether the case freezes or stops the server, which must then be one
        that it may break.
    """

    #: What the broker says of itself.
    record: t.ClassVar[Capabilities]
    #: Further configuration, without ``QCONSUME_``.
    config: t.ClassVar[dict[str, t.Any]] = {}
    #: Whether a connection that is cut ends the link; else it may mend underneath.
    loses_links: t.ClassVar[bool] = True
    #: The fixtures of a server that is shared, and of one that may be broken.
    shared: t.ClassVar[str] = ""
    own: t.ClassVar[str] = ""

    url: str
    #: What the names of the case begin with.
    name: str
    #: The broker's process, or processes, where it is the test's own.
    server: Server | RedisCluster

    def __init__(self, fixture: Fixture, breaks: bool) -> None:
        self.name = f"t{uuid.uuid4().hex[:8]}"

    @property
    def nowhere(self) -> str:
        """A URL with credentials where nobody listens."""
        scheme = self.url.partition(":")[0]
        return f"{scheme}://someone:secret@{HOST}:{free_port()}"

    def send(self, plan: QueuePlan, body: bytes) -> None:
        """Put a bare body into a queue, as a program would that knows nothing of us."""
        raise NotImplementedError

    def cut(self) -> None:
        """Close every connection, as an operator or a network would."""
        raise NotImplementedError

    def settle(self) -> None:
        """Wait until what was just declared outlives a kill of the server."""
        return

    def close(self) -> None:
        """Close what the place itself has open."""
        return


class Memory(Place):
    """No server, and no other process."""

    record = MEMORY

    def __init__(self, fixture: Fixture, breaks: bool) -> None:
        super().__init__(fixture, breaks)
        self.url = f"memory://{uuid.uuid4()}"


class Quorum(Place):
    """RabbitMQ with quorum queues."""

    record = QUORUM
    config: t.ClassVar[dict[str, t.Any]] = {"queue_type": "quorum"}
    shared = "rabbitmq_vhost"
    own = "own_rabbitmq_vhost"

    def __init__(self, fixture: Fixture, breaks: bool) -> None:
        super().__init__(fixture, breaks)
        self._vhost: Vhost = fixture(self.own if breaks else self.shared)
        self.url = self._vhost.url
        self.server = self._vhost.server

    def send(self, plan: QueuePlan, body: bytes) -> None:
        host, _, vhost = self.url.rpartition("@")[2].partition("/")
        with amqp.Connection(host, virtual_host=vhost, confirm_publish=True) as raw:
            raw.channel().basic_publish(amqp.Message(body), "", plan.name)

    def cut(self) -> None:
        self._vhost.close_connections()

    def settle(self) -> None:
        # RabbitMQ 3.10 writes later which quorum queues it has, and takes what
        # it finds in its log for an unknown one for nothing. So it is told to write.
        self.server.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")


class Classic(Quorum):
    """RabbitMQ with classic queues."""

    record = CLASSIC
    config: t.ClassVar[dict[str, t.Any]] = {"queue_type": "classic"}


class Lists(Place):
    """Redis in the layout of kombu's lists."""

    record = LISTS
    #: The shortest that tests can wait for.
    config: t.ClassVar[dict[str, t.Any]] = {"lease": 1.0}
    shared = "redis_url"
    own = "own_redis"

    def __init__(self, fixture: Fixture, breaks: bool) -> None:
        super().__init__(fixture, breaks)
        if breaks:
            self.server = fixture(self.own)
        self._plain = self.server.url if breaks else fixture(self.shared)
        self.url = self._plain

    def send(self, plan: QueuePlan, body: bytes) -> None:
        self._command("LPUSH", plan.name, body)

    def cut(self) -> None:
        with redis.Redis.from_url(self._plain) as client:
            database = self._plain.rpartition("/")[2]
            for each in client.client_list():
                if each["db"] == database and each["id"] != str(client.client_id()):
                    client.client_kill_filter(_id=each["id"], skipme=True)

    def _command(self, *arguments: t.Any) -> None:
        with redis.Redis.from_url(self._plain) as client:
            client.execute_command(*arguments)


class Streams(Lists):
    """Redis Streams."""

    record = STREAMS

    def __init__(self, fixture: Fixture, breaks: bool) -> None:
        super().__init__(fixture, breaks)
        self.url = self._plain.replace("redis:", "redis-streams:")

    def send(self, plan: QueuePlan, body: bytes) -> None:
        self._command("XADD", plan.name, "*", "body", body)


class Cluster(Place):
    """Redis Streams on a Redis Cluster."""

    record = STREAMS
    config = Lists.config
    shared = own = "redis_cluster"

    def __init__(self, fixture: Fixture, breaks: bool) -> None:
        super().__init__(fixture, breaks)
        self.server: RedisCluster = fixture(self.own)
        self.url = self.server.url

    def send(self, plan: QueuePlan, body: bytes) -> None:
        owner = self.server.owner(plan.name)
        owner.command("XADD", plan.name, "*", "body", body)

    def cut(self) -> None:
        for node in self.server.masters():
            node.command("CLIENT", "KILL", "TYPE", "normal")


class Topics(Place):
    """Kafka."""

    record = KAFKA
    #: A dead member is found soon, which only its options ask for below six seconds.
    config: t.ClassVar[dict[str, t.Any]] = {
        "transport_options": {
            "partitions": 2,
            "kafka_consumer_config": {
                "session.timeout.ms": 2_000,
                "heartbeat.interval.ms": 500,
            },
        },
    }
    shared = "kafka"
    own = "own_kafka"
    loses_links = False

    def __init__(self, fixture: Fixture, breaks: bool) -> None:
        super().__init__(fixture, breaks)
        self.server = self._kafka = fixture(self.own if breaks else self.shared)
        self.url = self._kafka.url
        if not breaks:
            # Its topics are deleted afterwards.
            self.name = fixture("kafka_prefix").removesuffix(".")

    def send(self, plan: QueuePlan, body: bytes) -> None:
        producer = confluent_kafka.Producer(
            {"bootstrap.servers": self.url.rpartition("/")[2]}
        )
        producer.produce(plan.bindings[0].routing_key, body)
        assert producer.flush(10) == 0


PLACES: dict[str, type[Place]] = {
    "quorum": Quorum,
    "classic": Classic,
    "redis": Lists,
    "streams": Streams,
    "cluster": Cluster,
    "kafka": Topics,
    "memory": Memory,
}
