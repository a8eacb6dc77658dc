"""The brokers under test: their capabilities, and the servers behind them.

These classes do what a case cannot do through the package: send messages as a foreign
program does, cut connections, and freeze or restart servers.
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
from flask_qconsume.brokers.sql.postgresql.capabilities import (
    CAPABILITIES as POSTGRESQL,
)
from flask_qconsume.brokers.sql.sqlite.capabilities import CAPABILITIES as SQLITE

from ..servers import Database
from ..servers import RedisCluster
from ..servers import Server
from ..servers import SQLiteFile
from ..servers import Vhost
from ..servers.ports import HOST
from ..servers.ports import free_port

Fixture = t.Callable[[str], t.Any]


class BrokerUnderTest(abc.ABC):
    """One broker for one case.

    :param fixture: Returns the fixture of a name.
    :param breaks: Whether the case freezes or stops the server. Then the server is not
        shared with other tests.
    """

    #: The capabilities that the broker declares.
    capabilities: t.ClassVar[Capabilities]
    #: Further configuration, without ``QCONSUME_``.
    config: t.ClassVar[dict[str, t.Any]] = {}
    #: Whether a cut connection ends the link. Kafka's client reconnects by itself, and
    #: a link to a database is a row there.
    loses_links: t.ClassVar[bool] = True
    #: The fixture of a shared server, and that of a server which a test may break.
    shared: t.ClassVar[str] = ""
    own: t.ClassVar[str] = ""

    url: str
    #: Prefix of all names of the case.
    name: str
    #: The broker's process or processes, if the test does not share them.
    server: Server | RedisCluster | SQLiteFile

    def __init__(self, fixture: Fixture, breaks: bool) -> None:
        self.name = f"t{uuid.uuid4().hex[:8]}"

    @property
    def unreachable_url(self) -> str:
        """A URL with credentials, of a port on which no server listens."""
        scheme = self.url.partition(":")[0]
        return f"{scheme}://someone:secret@{HOST}:{free_port()}"

    def send_foreign(self, plan: QueuePlan, body: bytes) -> None:
        """Put a bare body into a queue, as a program without this package does."""
        raise NotImplementedError

    def cut_connections(self) -> None:
        """Close every connection, as an operator or a network failure does."""
        raise NotImplementedError

    def sync_declarations(self) -> None:
        """Make the queues that were just declared survive a kill of the server."""
        return

    def close(self) -> None:
        """Close the connections of this object."""
        return


class Memory(BrokerUnderTest):
    """The memory broker, which has no server."""

    capabilities = MEMORY

    def __init__(self, fixture: Fixture, breaks: bool) -> None:
        super().__init__(fixture, breaks)
        self.url = f"memory://{uuid.uuid4()}"


class Quorum(BrokerUnderTest):
    """RabbitMQ with quorum queues."""

    capabilities = QUORUM
    config: t.ClassVar[dict[str, t.Any]] = {"queue_type": "quorum"}
    shared = "rabbitmq_vhost"
    own = "own_rabbitmq_vhost"

    def __init__(self, fixture: Fixture, breaks: bool) -> None:
        super().__init__(fixture, breaks)
        self._vhost: Vhost = fixture(self.own if breaks else self.shared)
        self.url = self._vhost.url
        self.server = self._vhost.server

    def send_foreign(self, plan: QueuePlan, body: bytes) -> None:
        host, _, vhost = self.url.rpartition("@")[2].partition("/")
        with amqp.Connection(host, virtual_host=vhost, confirm_publish=True) as raw:
            raw.channel().basic_publish(amqp.Message(body), "", plan.name)

    def cut_connections(self) -> None:
        self._vhost.close_connections()

    def sync_declarations(self) -> None:
        # RabbitMQ 3.10 writes its list of quorum queues with a delay. After a restart
        # it discards log entries of queues that the list lacks, so sync it now.
        self.server.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")


class Classic(Quorum):
    """RabbitMQ with classic queues."""

    capabilities = CLASSIC
    config: t.ClassVar[dict[str, t.Any]] = {"queue_type": "classic"}


class Lists(BrokerUnderTest):
    """Redis with lists, in kombu's layout."""

    capabilities = LISTS
    #: The shortest lease allowed, in seconds: tests wait for its end.
    config: t.ClassVar[dict[str, t.Any]] = {"lease": 1.0}
    shared = "redis_url"
    own = "own_redis"

    def __init__(self, fixture: Fixture, breaks: bool) -> None:
        super().__init__(fixture, breaks)
        if breaks:
            self.server = fixture(self.own)
        self._plain = self.server.url if breaks else fixture(self.shared)
        self.url = self._plain

    def send_foreign(self, plan: QueuePlan, body: bytes) -> None:
        self._command("LPUSH", plan.name, body)

    def cut_connections(self) -> None:
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

    capabilities = STREAMS

    def __init__(self, fixture: Fixture, breaks: bool) -> None:
        super().__init__(fixture, breaks)
        self.url = self._plain.replace("redis:", "redis-streams:")

    def send_foreign(self, plan: QueuePlan, body: bytes) -> None:
        self._command("XADD", plan.name, "*", "body", body)


class Cluster(BrokerUnderTest):
    """Redis Streams on a Redis Cluster."""

    capabilities = STREAMS
    config = Lists.config
    shared = own = "redis_cluster"

    def __init__(self, fixture: Fixture, breaks: bool) -> None:
        super().__init__(fixture, breaks)
        self.server: RedisCluster = fixture(self.own)
        self.url = self.server.url

    def send_foreign(self, plan: QueuePlan, body: bytes) -> None:
        owner = self.server.owner(plan.name)
        owner.command("XADD", plan.name, "*", "body", body)

    def cut_connections(self) -> None:
        for node in self.server.masters():
            node.command("CLIENT", "KILL", "TYPE", "normal")


class Topics(BrokerUnderTest):
    """Kafka."""

    capabilities = KAFKA
    #: Kafka notices a dead member after 2 s; its default minimum is 6 s.
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
            # The fixture deletes the topics with this prefix.
            self.name = fixture("kafka_prefix").removesuffix(".")

    def send_foreign(self, plan: QueuePlan, body: bytes) -> None:
        producer = confluent_kafka.Producer(
            {"bootstrap.servers": self.url.rpartition("/")[2]}
        )
        producer.produce(plan.bindings[0].routing_key, body)
        assert producer.flush(10) == 0


class PostgreSQL(BrokerUnderTest):
    """PostgreSQL."""

    capabilities = POSTGRESQL
    config = Lists.config
    loses_links = False
    shared = "postgresql_database"
    own = "own_postgresql_database"

    def __init__(self, fixture: Fixture, breaks: bool) -> None:
        super().__init__(fixture, breaks)
        self._database: Database = fixture(self.own if breaks else self.shared)
        self.url = self._database.url
        self.server = self._database.server

    def send_foreign(self, plan: QueuePlan, body: bytes) -> None:
        insert = "INSERT INTO qconsume_message (queue, body) VALUES (%s, %s)"
        self._database.execute(insert, plan.name, body)

    def cut_connections(self) -> None:
        self._database.terminate_connections()


class SQLite(BrokerUnderTest):
    """SQLite."""

    capabilities = SQLITE
    config = Lists.config
    loses_links = False

    def __init__(self, fixture: Fixture, breaks: bool) -> None:
        super().__init__(fixture, breaks)
        self.server = self._file = fixture("sqlite_file")
        self.url = self._file.url

    @property
    def unreachable_url(self) -> str:
        """The URL of a file that cannot be created."""
        return "sqlite:////proc/nowhere/queue.db"

    def send_foreign(self, plan: QueuePlan, body: bytes) -> None:
        insert = "INSERT INTO qconsume_message (queue, body) VALUES (?, ?)"
        self._file.execute(insert, plan.name, body)

    def cut_connections(self) -> None:
        """Do nothing: there is no connection to a file that could be cut."""


BROKERS: dict[str, type[BrokerUnderTest]] = {
    "quorum": Quorum,
    "classic": Classic,
    "redis": Lists,
    "streams": Streams,
    "cluster": Cluster,
    "kafka": Topics,
    "postgresql": PostgreSQL,
    "sqlite": SQLite,
    "memory": Memory,
}
