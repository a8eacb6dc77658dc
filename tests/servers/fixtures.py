"""Fixtures of brokers: shared ones, and ones that a test may stop or kill.

Tests of a broker that is not installed are skipped, and the last lines of the run say
so. With ``QCONSUME_REQUIRE_BROKERS=1`` they fail.
"""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest

from .chromium import Chromium
from .collector import Collector
from .disk import SmallDisk
from .jaeger import Jaeger
from .kafka import Kafka
from .kafka import KafkaCluster
from .kafka import fresh_prefix
from .pgbouncer import PgBouncer
from .postgresql import Database
from .postgresql import PostgreSQL
from .postgresql import PostgreSQLPair
from .prometheus import Prometheus
from .rabbitmq import RabbitMQ
from .rabbitmq import Vhost
from .redis import Redis
from .redis_cluster import RedisCluster
from .redis_sentinel import RedisSentinel
from .server import Server
from .sqlite import SQLiteFile

REQUIRE = "QCONSUME_REQUIRE_BROKERS"

#: The server that each fixture needs.
NEEDS: dict[str, type[Server]] = {
    "rabbitmq": RabbitMQ,
    "own_rabbitmq": RabbitMQ,
    "redis_server": Redis,
    "own_redis": Redis,
    "redis_cluster": Redis,
    "redis_sentinel": Redis,
    "kafka": Kafka,
    "own_kafka": Kafka,
    "own_kafka_cluster": Kafka,
    "postgresql": PostgreSQL,
    "own_postgresql": PostgreSQL,
    "postgresql_pair": PostgreSQL,
    "pgbouncer": PgBouncer,
    "browser": Chromium,
    "prometheus": Prometheus,
    "collector": Collector,
    "jaeger": Jaeger,
}


class NotMarked(Exception):
    """A test uses a broker and has no ``broker`` marker."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_missing] = {}
    config.pluginmanager.register(Recorder(config))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that need a real broker: ``-m "not broker"`` leaves them out."""
    for item in items:
        for server in _needed(item):
            item.add_marker("broker")
            if reason := server.missing():
                item.user_properties.append((_MISSING, [server.title, reason]))


class Recorder:
    """Recorder of missing brokers, also from pytest-xdist's processes."""

    def __init__(self, config: pytest.Config) -> None:
        self._missing = config.stash[_missing]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == _MISSING:
                title, reason = t.cast(tuple[str, str], value)
                self._missing[title] = reason


def pytest_runtest_setup(item: pytest.Item) -> None:
    for server in _needed(item):
        if reason := server.missing():
            refuse(f"{server.title} is not installed: {reason}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for title, reason in sorted(config.stash[_missing].items()):
        terminalreporter.write_line(
            f"{title} is missing ({reason}): its tests did not run;"
            f" {REQUIRE}=1 makes that a failure.",
            yellow=True,
        )


@pytest.fixture(autouse=True)
def brokers_are_marked(request: pytest.FixtureRequest) -> t.Iterator[None]:
    """Fail a test that requests a broker while it runs, but has no ``broker`` marker.

    ``-m "not broker"`` could not leave it out.
    """
    yield
    used = NEEDS.keys() & set(request.fixturenames)
    markers = {mark.name for mark in request.node.iter_markers()}
    if used and not markers & {"broker", "long"}:
        raise NotMarked(f"uses {', '.join(sorted(used))}, is not marked as 'broker'")


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[RabbitMQ]:
    """The shared RabbitMQ: do not stop it, nor use its default virtual host."""
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture
def rabbitmq_vhost(rabbitmq: RabbitMQ) -> t.Iterator[Vhost]:
    """A new virtual host on the shared RabbitMQ."""
    with rabbitmq.vhost() as vhost:
        yield vhost


@pytest.fixture
def rabbitmq_url(rabbitmq_vhost: Vhost) -> str:
    return rabbitmq_vhost.url


@pytest.fixture(scope="session")
def _second_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[RabbitMQ]:
    with RabbitMQ(tmp_path_factory.mktemp("own-rabbitmq")) as server:
        yield server


@pytest.fixture
def own_rabbitmq(_second_rabbitmq: RabbitMQ) -> RabbitMQ:
    """A RabbitMQ that the test may stop, kill, freeze and start again.

    Since a start takes seconds it is one for all these tests, up again for each: take
    `own_rabbitmq_vhost` to have an empty one.
    """
    if not _second_rabbitmq.running:
        _second_rabbitmq.start()
    return _second_rabbitmq


@pytest.fixture
def own_rabbitmq_vhost(own_rabbitmq: RabbitMQ) -> t.Iterator[Vhost]:
    """A new virtual host on a RabbitMQ that the test may kill."""
    with own_rabbitmq.vhost() as vhost:
        yield vhost


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Redis]:
    """The shared Redis: do not stop or reconfigure it."""
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: Redis) -> t.Iterator[str]:
    """An empty database on the shared Redis."""
    url = redis_server.fresh_url()
    yield url
    redis_server.command("FLUSHDB", url=url)


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Redis]:
    """A Redis that the test may stop, kill, freeze and start again.

    What it has confirmed is on the disk, as where nothing may be lost.
    """
    options = {"appendfsync": "always"}
    with Redis(tmp_path_factory.mktemp("own-redis"), options=options) as server:
        yield server


@pytest.fixture(scope="session")
def _one_redis_cluster(
    tmp_path_factory: pytest.TempPathFactory,
) -> t.Iterator[RedisCluster]:
    with RedisCluster(tmp_path_factory.mktemp("redis-cluster")) as cluster:
        yield cluster


@pytest.fixture
def redis_cluster(_one_redis_cluster: RedisCluster) -> RedisCluster:
    """An empty Redis Cluster; the test may kill its nodes."""
    _one_redis_cluster.mend()
    return _one_redis_cluster


@pytest.fixture
def redis_sentinel(
    tmp_path_factory: pytest.TempPathFactory,
) -> t.Iterator[RedisSentinel]:
    """A Redis with a replica and sentinels; the test may kill any of them."""
    with RedisSentinel(tmp_path_factory.mktemp("redis-sentinel")) as servers:
        yield servers


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Kafka]:
    """The shared Kafka: do not stop it, and use the prefix for topics."""
    with Kafka(tmp_path_factory.mktemp("kafka"), users={"guest": "guest"}) as server:
        yield server


@pytest.fixture
def kafka_prefix(kafka: Kafka) -> t.Iterator[str]:
    """The prefix of a test's topics and queues on the shared Kafka."""
    prefix = fresh_prefix()
    yield prefix
    kafka.delete_topics(prefix)


@pytest.fixture
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Kafka]:
    """A Kafka that the test may stop, kill, freeze and start again."""
    folder = tmp_path_factory.mktemp("own-kafka")
    with Kafka(folder, users={"guest": "guest"}) as server:
        yield server


@pytest.fixture
def own_kafka_cluster(
    tmp_path_factory: pytest.TempPathFactory,
) -> t.Iterator[KafkaCluster]:
    """A cluster of three Kafkas, of which the test may stop one at a time."""
    with KafkaCluster(tmp_path_factory.mktemp("own-kafka-cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[PostgreSQL]:
    """The shared PostgreSQL: do not stop it, nor use its default database."""
    with PostgreSQL(tmp_path_factory.mktemp("postgresql")) as server:
        yield server


@pytest.fixture
def postgresql_database(postgresql: PostgreSQL) -> t.Iterator[Database]:
    """A new database on the shared PostgreSQL."""
    with postgresql.database() as database:
        yield database


@pytest.fixture
def postgresql_url(postgresql_database: Database) -> str:
    return postgresql_database.url


@pytest.fixture
def pgbouncer(
    tmp_path_factory: pytest.TempPathFactory, postgresql: PostgreSQL
) -> t.Iterator[PgBouncer]:
    """A pooler of transactions in front of the shared PostgreSQL."""
    with PgBouncer(tmp_path_factory.mktemp("pgbouncer"), postgresql) as pooler:
        yield pooler


@pytest.fixture(scope="session")
def _second_postgresql(
    tmp_path_factory: pytest.TempPathFactory,
) -> t.Iterator[PostgreSQL]:
    with PostgreSQL(tmp_path_factory.mktemp("own-postgresql")) as server:
        yield server


@pytest.fixture
def own_postgresql(_second_postgresql: PostgreSQL) -> PostgreSQL:
    """A PostgreSQL that the test may stop, kill, freeze and start again.

    It is one for all these tests, up again for each: take `own_postgresql_database` to
    have an empty database.
    """
    if not _second_postgresql.running:
        _second_postgresql.start()
    return _second_postgresql


@pytest.fixture
def own_postgresql_database(
    own_postgresql: PostgreSQL,
) -> t.Iterator[Database]:
    """A new database on a PostgreSQL that the test may kill; root may fill its disk."""
    with (
        SmallDisk.mounted(megabytes=128) as disk,
        own_postgresql.database(disk) as database,
    ):
        yield database
        if not own_postgresql.running:
            own_postgresql.start()  # To drop the database.


@pytest.fixture
def postgresql_pair(
    tmp_path_factory: pytest.TempPathFactory,
) -> t.Iterator[PostgreSQLPair]:
    """A PostgreSQL with a standby, which takes its place in a failover."""
    with PostgreSQLPair(tmp_path_factory.mktemp("postgresql-pair")) as servers:
        yield servers


@pytest.fixture
def sqlite_file(tmp_path: pathlib.Path) -> SQLiteFile:
    """A database file that does not exist yet, in a folder of its own."""
    return SQLiteFile(tmp_path / "sqlite")


@pytest.fixture
def own_sqlite(tmp_path: pathlib.Path) -> t.Iterator[SQLiteFile]:
    """A database file that a test may lock and take away; root may fill its disk."""
    with SmallDisk.mounted(megabytes=128) as disk:
        yield SQLiteFile((disk.folder if disk else tmp_path) / "folder", disk)


@pytest.fixture
def sqlite_url(sqlite_file: SQLiteFile) -> str:
    return sqlite_file.url


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Chromium]:
    """A browser shared by all tests."""
    with Chromium(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def kafka_url(kafka: Kafka) -> str:
    """The shared Kafka; take a ``kafka_prefix`` beside it."""
    return kafka.url


_missing = pytest.StashKey[dict[str, str]]()
#: The property of a test report with a missing broker and the reason.
_MISSING = "missing broker"


def _needed(item: pytest.Item) -> list[type[Server]]:
    names = getattr(item, "fixturenames", ())
    return [NEEDS[name] for name in names if name in NEEDS]


def require(fixture: str) -> None:
    """Skip or fail a test that asks for this fixture while it runs."""
    server = NEEDS.get(fixture.removesuffix("_vhost").removesuffix("_database"))
    if server is not None and (reason := server.missing()):
        refuse(f"{server.title} is not installed: {reason}")


def refuse(reason: str) -> t.NoReturn:
    """Skip a test, or fail it if no broker may be missing."""
    if os.environ.get(REQUIRE, "") not in {"", "0"}:
        pytest.fail(f"{reason}, and {REQUIRE} is set", pytrace=False)
    pytest.skip(reason)
