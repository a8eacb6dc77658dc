"""Each throwaway server starts, keeps its data, dies when told, and leaves nothing."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import sqlite3
import typing as t

import amqp
import psutil
import psycopg
import pytest

from .servers import Database
from .servers import Kafka
from .servers import KafkaCluster
from .servers import PostgreSQL
from .servers import PostgreSQLPair
from .servers import RabbitMQ
from .servers import Redis
from .servers import Server
from .servers import ServerError
from .servers import SmallDisk
from .servers import SQLiteFile
from .servers import Vhost
from .servers.fixtures import refuse
from .servers.server import is_alive
from .waiting import wait_for


def test_redis_keeps_its_data_over_a_stop_and_a_kill(own_redis: Redis) -> None:
    own_redis.command("SET", "stopped", "1")
    own_redis.restart()
    own_redis.command("SET", "killed", "2")
    own_redis.kill()
    own_redis.start()
    assert own_redis.command("MGET", "stopped", "killed") == ["1", "2"]


def test_redis_takes_options(tmp_path: pathlib.Path, own_redis: Redis) -> None:
    with Redis(tmp_path / "other", options={"maxmemory": "64mb"}) as other:
        assert other.command("CONFIG", "GET", "maxmemory") == {
            "maxmemory": str(64 * 1024**2)
        }
        assert other.port != own_redis.port


def test_each_test_has_a_redis_database_of_its_own(
    redis_server: Redis, redis_url: str
) -> None:
    redis_server.command("SET", "here", "1", url=redis_url)
    assert redis_server.command("EXISTS", "here", url=redis_server.fresh_url()) == 0


def test_a_frozen_redis_answers_once_it_is_thawed(own_redis: Redis) -> None:
    process = psutil.Process(own_redis.pid)
    with own_redis.frozen():
        wait_for(lambda: process.status() == psutil.STATUS_STOPPED)
    assert own_redis.command("PING")


def test_a_closed_redis_leaves_no_process(own_redis: Redis) -> None:
    assert_leaves_nothing(own_redis)


@pytest.mark.process
def test_a_redis_that_cannot_start_says_why(tmp_path: pathlib.Path) -> None:
    if reason := Redis.missing():
        pytest.skip(reason)
    server = Redis(tmp_path, options={"no-such-option": "1"})
    with pytest.raises(ServerError, match="no-such-option"):
        server.start()
    assert not server.running


def test_rabbitmq_keeps_durable_messages_over_a_stop_and_a_kill(
    own_rabbitmq: RabbitMQ, own_rabbitmq_vhost: Vhost
) -> None:
    publish(own_rabbitmq_vhost, "kept", b"over a stop", declare=True)
    own_rabbitmq.restart()
    publish(own_rabbitmq_vhost, "kept", b"over a kill")
    own_rabbitmq.kill()
    own_rabbitmq.start()
    assert fetch(own_rabbitmq_vhost, "kept", count=2) == [
        b"over a stop",
        b"over a kill",
    ]


def test_a_closed_rabbitmq_leaves_no_process(own_rabbitmq: RabbitMQ) -> None:
    assert_leaves_nothing(own_rabbitmq)


@pytest.mark.process
def test_a_rabbitmq_that_cannot_start_says_why(tmp_path: pathlib.Path) -> None:
    if reason := RabbitMQ.missing():
        pytest.skip(reason)
    server = RabbitMQ(tmp_path, config={"no_such_option": "1"})
    with pytest.raises(ServerError, match="no_such_option"), server:
        pass
    assert working_in(tmp_path) == []


def test_each_test_has_a_virtual_host_of_its_own(
    rabbitmq: RabbitMQ, rabbitmq_vhost: Vhost
) -> None:
    publish(rabbitmq_vhost, "here", b"1", declare=True)
    with rabbitmq.vhost() as other:
        assert other.name != rabbitmq_vhost.name
        assert other.queues() == {}
    assert list(rabbitmq_vhost.queues()) == ["here"]


def test_the_state_of_queues_can_be_read_and_changed(rabbitmq_vhost: Vhost) -> None:
    publish(rabbitmq_vhost, "kept", b"1", declare=True)
    wait_for(lambda: rabbitmq_vhost.queues()["kept"]["messages_ready"] == 1)
    assert rabbitmq_vhost.queues()["kept"]["type"] == "quorum"
    rabbitmq_vhost.delete_queue("kept")
    assert rabbitmq_vhost.queues() == {}


def test_closing_the_connections_of_a_virtual_host_spares_other_virtual_hosts(
    rabbitmq: RabbitMQ, rabbitmq_vhost: Vhost
) -> None:
    with rabbitmq.vhost() as other, connect(other) as spared:
        closed = connect(rabbitmq_vhost)
        closed.connect()
        rabbitmq_vhost.close_connections()
        with pytest.raises(amqp.ConnectionForced):
            closed.drain_events(timeout=10)
        closed.collect()
        assert spared.channel().is_open


def test_a_memory_alarm_blocks_publishers(
    own_rabbitmq: RabbitMQ, own_rabbitmq_vhost: Vhost
) -> None:
    said: list[str] = []
    connection = connect(own_rabbitmq_vhost, on_blocked=said.append)
    with connection:
        channel = connection.channel()
        with own_rabbitmq.memory_alarm():
            channel.basic_publish(amqp.Message(b"1"), routing_key="nowhere")
            connection.drain_events(timeout=10)
    assert len(said) == 1


def test_a_refused_command_says_why(rabbitmq: RabbitMQ) -> None:
    with pytest.raises(ServerError, match="no_such_vhost"):
        rabbitmq.ctl("delete_vhost", "no_such_vhost")


def test_kafka_keeps_its_records_over_a_kill(own_kafka: Kafka) -> None:
    own_kafka.create_topics({"kept": 1})
    produce(own_kafka, "kept", b"over a kill")
    own_kafka.kill()
    own_kafka.start()
    assert consume(own_kafka, "kept", count=1) == [b"over a kill"]
    assert_leaves_nothing(own_kafka)


@pytest.mark.process
def test_a_kafka_that_cannot_start_says_why(tmp_path: pathlib.Path) -> None:
    if reason := Kafka.missing():
        pytest.skip(reason)
    server = Kafka(tmp_path, config={"num.partitions": "none"})
    with pytest.raises(ServerError, match="Invalid value none"):
        server.start()
    assert not server.running


def test_a_kafka_that_is_missing_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "get_kafka" in (Kafka.missing() or "") or not shutil.which("java")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Kafka.missing() == "no java on the PATH"


def test_a_test_does_not_see_the_topics_of_another_test(
    kafka: Kafka, kafka_prefix: str
) -> None:
    with_prefix = f"{kafka_prefix}here"
    kafka.create_topics({with_prefix: 2, f"_qconsume.{kafka_prefix}a.dead": 1})
    kafka.delete_topics(kafka_prefix)
    wait_for(lambda: not any(kafka_prefix in name for name in kafka.topics()))


@pytest.mark.long
def test_a_cluster_of_kafkas_goes_on_without_one_of_them(
    own_kafka_cluster: KafkaCluster,
) -> None:
    own_kafka_cluster.create_topics({"kept": 1})
    leader = own_kafka_cluster.leaders("kept")[0]
    leader.kill()
    wait_for(lambda: own_kafka_cluster.leaders("kept").get(0) not in {None, leader})
    produce(own_kafka_cluster, "kept", b"1")
    assert consume(own_kafka_cluster, "kept", count=1) == [b"1"]


def test_postgresql_keeps_its_data_over_a_stop_and_a_kill(
    own_postgresql: PostgreSQL, own_postgresql_database: Database
) -> None:
    own_postgresql_database.execute("CREATE TABLE kept (over text)")
    for over, end in [("a stop", own_postgresql.stop), ("a kill", own_postgresql.kill)]:
        own_postgresql_database.execute("INSERT INTO kept VALUES (%s)", over)
        end()
        own_postgresql.start()
    found = own_postgresql_database.execute("SELECT over FROM kept")
    assert found == [("a stop",), ("a kill",)]


@pytest.mark.process
def test_postgresql_takes_options(tmp_path: pathlib.Path) -> None:
    if reason := PostgreSQL.missing():
        refuse(reason)
    with PostgreSQL(tmp_path / "other", options={"work_mem": "64kB"}) as other:
        assert other.execute("SHOW work_mem") == [("64kB",)]
    assert working_in(tmp_path / "other" / "data") == []


def test_each_test_has_a_postgresql_database_of_its_own(
    postgresql: PostgreSQL, postgresql_database: Database
) -> None:
    postgresql_database.execute("CREATE TABLE here ()")
    with postgresql.database() as other:
        assert other.execute("SELECT to_regclass('here')") == [(None,)]
    assert postgresql_database.execute("SELECT * FROM here") == []
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        other.connect()


def test_a_frozen_postgresql_answers_once_it_is_thawed(
    own_postgresql: PostgreSQL,
) -> None:
    with own_postgresql.connect() as connection:
        backend = psutil.Process(connection.info.backend_pid)
        with own_postgresql.frozen():
            assert backend.status() == psutil.STATUS_STOPPED
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_connections_of_one_database_are_terminated(
    postgresql: PostgreSQL, postgresql_database: Database
) -> None:
    with postgresql.connect() as spared, postgresql_database.connect() as ended:
        postgresql_database.terminate_connections()
        with pytest.raises(psycopg.errors.AdminShutdown):
            ended.execute("SELECT 1")
        assert spared.execute("SELECT 1").fetchone() == (1,)


def test_a_full_disk_ends_postgresql_which_keeps_its_data(
    own_postgresql: PostgreSQL, own_postgresql_database: Database
) -> None:
    own_postgresql_database.execute("CREATE TABLE kept (n int)")
    own_postgresql_database.execute("INSERT INTO kept VALUES (1)")
    with own_postgresql.full_disk():
        with pytest.raises(psycopg.Error):
            own_postgresql_database.execute("INSERT INTO kept VALUES (2)")
        wait_for(lambda: not own_postgresql.running, 30)
    own_postgresql.start()
    assert own_postgresql_database.execute("SELECT n FROM kept") == [(1,)]


def test_a_full_disk_of_tables_leaves_postgresql_running(
    own_postgresql_database: Database,
) -> None:
    if reason := SmallDisk.missing():
        pytest.skip(reason)
    own_postgresql_database.execute("CREATE TABLE kept (body text)")
    insert = "INSERT INTO kept SELECT repeat('x', 1000) FROM generate_series(1, 10000)"
    with own_postgresql_database.full_disk(), pytest.raises(psycopg.errors.DiskFull):
        own_postgresql_database.execute(insert)
    own_postgresql_database.execute(insert)


@pytest.mark.process
def test_a_postgresql_that_cannot_start_says_why(tmp_path: pathlib.Path) -> None:
    if reason := PostgreSQL.missing():
        pytest.skip(reason)
    server = PostgreSQL(tmp_path, options={"no_such_option": "1"})
    with pytest.raises(ServerError, match="no_such_option"):
        server.start()
    assert not server.running


@pytest.mark.long
def test_a_standby_takes_the_place_of_a_killed_postgresql(
    postgresql_pair: PostgreSQLPair,
) -> None:
    postgresql_pair.primary.execute("CREATE TABLE kept ()")
    postgresql_pair.standby.await_replica()
    url = postgresql_pair.url
    postgresql_pair.fail_over()
    assert postgresql_pair.url == url
    assert postgresql_pair.primary.execute("SELECT * FROM kept") == []
    postgresql_pair.primary.execute("CREATE TABLE written ()")
    postgresql_pair.standby.await_replica()


def test_a_locked_sqlite_file_refuses_writers_and_serves_readers(
    sqlite_file: SQLiteFile,
) -> None:
    sqlite_file.execute("PRAGMA journal_mode=WAL")
    sqlite_file.execute("CREATE TABLE kept (n)")
    with sqlite_file.connect() as other:
        other.execute("PRAGMA busy_timeout=0")
        with sqlite_file.frozen():
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("INSERT INTO kept VALUES (1)")
            assert other.execute("SELECT * FROM kept").fetchall() == []
        other.execute("INSERT INTO kept VALUES (1)")


def test_a_long_reader_of_a_sqlite_file_holds_back_checkpoints(
    sqlite_file: SQLiteFile,
) -> None:
    sqlite_file.execute("PRAGMA journal_mode=WAL")
    sqlite_file.execute("CREATE TABLE kept (n)")
    with sqlite_file.connect() as writer:
        with sqlite_file.snapshot():
            writer.execute("INSERT INTO kept VALUES (1)")
            (found,) = writer.execute("PRAGMA wal_checkpoint").fetchall()
            assert found[1] > found[2]
        (found,) = writer.execute("PRAGMA wal_checkpoint").fetchall()
        assert found[1] == found[2]


def test_a_sqlite_file_that_is_away_keeps_its_data(sqlite_file: SQLiteFile) -> None:
    sqlite_file.execute("CREATE TABLE kept (n)")
    sqlite_file.kill()
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        sqlite_file.execute("SELECT * FROM kept")
    sqlite_file.start()
    assert sqlite_file.execute("SELECT * FROM kept") == []


@pytest.mark.process
def test_a_sqlite_file_whose_disk_is_full_cannot_grow(own_sqlite: SQLiteFile) -> None:
    if reason := SmallDisk.missing():
        pytest.skip(reason)
    own_sqlite.execute("CREATE TABLE kept (body)")
    insert = "INSERT INTO kept VALUES (zeroblob(1000000))"
    with own_sqlite.full_disk(), pytest.raises(sqlite3.OperationalError, match="full"):
        own_sqlite.execute(insert)
    own_sqlite.execute(insert)


@pytest.mark.process
def test_a_small_disk_is_full_until_it_is_not() -> None:
    if reason := SmallDisk.missing():
        pytest.skip(reason)
    with SmallDisk(megabytes=1) as disk:
        written = disk.folder / "written"
        with disk.full(), pytest.raises(OSError, match="No space left"):
            written.write_bytes(b"1")
        assert written.write_bytes(b"1") == 1
    assert not written.exists()


def assert_leaves_nothing(server: Server) -> None:
    """End it, and look for processes that work in its folder."""
    assert working_in(server.folder)
    server.close()
    assert working_in(server.folder) == []


def working_in(folder: pathlib.Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter()
        if is_alive(process) and folder_of(process) == str(folder)
    ]


def folder_of(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def produce(kafka: Kafka | KafkaCluster, topic: str, value: bytes) -> None:
    """Produce one record, and return once all replicas in sync have it."""
    import confluent_kafka

    producer = confluent_kafka.Producer(
        {"bootstrap.servers": kafka.address, "log_level": 0}
    )
    producer.produce(topic, value)
    assert producer.flush(30) == 0


def consume(kafka: Kafka | KafkaCluster, topic: str, *, count: int) -> list[bytes]:
    """The first records of the partition 0."""
    import confluent_kafka

    settings = {"bootstrap.servers": kafka.address, "group.id": "g", "log_level": 0}
    consumer = confluent_kafka.Consumer(settings)
    with contextlib.closing(consumer):
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
        return [each.value() for each in consumer.consume(count, 30)]


def connect(vhost: Vhost, **options: t.Any) -> amqp.Connection:
    host = f"127.0.0.1:{vhost.server.port}"
    return amqp.Connection(host, virtual_host=vhost.name, **options)


def publish(vhost: Vhost, queue: str, body: bytes, *, declare: bool = False) -> None:
    """Publish persistently, and return once the broker has confirmed it."""
    with connect(vhost, confirm_publish=True) as connection:
        channel = connection.channel()
        if declare:
            arguments = {"x-queue-type": "quorum"}
            channel.queue_declare(
                queue, durable=True, auto_delete=False, arguments=arguments
            )
        message = amqp.Message(body, delivery_mode=2)
        channel.basic_publish(message, routing_key=queue)


def fetch(vhost: Vhost, queue: str, *, count: int) -> list[bytes]:
    with connect(vhost) as connection:
        channel = connection.channel()
        found: list[bytes] = []

        def enough() -> bool:
            if message := channel.basic_get(queue, no_ack=True):
                found.append(message.body)
            return len(found) >= count

        wait_for(enough, message=f"{count} messages in '{queue}'")
        return found
