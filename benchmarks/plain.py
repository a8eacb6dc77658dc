"""Plain messages, published and counted by the brokers' own clients.

Functions import the packages that they need, as in contenders: nothing may be imported
before a contender has patched its process.
"""

from __future__ import annotations

import time
import typing as t
from collections.abc import Iterable
from collections.abc import Mapping

from .job import Job

#: Most unconfirmed messages while a queue is filled.
_AHEAD = 5_000
#: The consumer group that reads a Redis stream.
GROUP = "benchmark"


def fill(job: Job) -> None:
    """Put the job's messages into its queue, stream or topic."""
    fillers = {
        "rabbitmq": rabbitmq,
        "rabbitmq-quorum": rabbitmq,
        "redis": _redis_list,
        "redis-streams": _redis_stream,
        "kafka": _kafka,
    }
    fillers[job.broker](job)


def left(job: Job) -> int:
    """Return how many messages are waiting or unacknowledged."""
    counts = {
        "rabbitmq": _rabbitmq_depth,
        "rabbitmq-quorum": _rabbitmq_depth,
        "redis": _redis_list_depth,
        "redis-streams": _redis_stream_depth,
        "kafka": _kafka_depth,
    }
    return counts[job.broker](job)


def rabbitmq(
    job: Job,
    bodies: Iterable[bytes] = (),
    *,
    arguments: Mapping[str, t.Any] | None = None,
    exchange: str = "",
    queue: str = "",
    declared: bool = False,
    **properties: t.Any,
) -> None:
    """Publish persistent messages to a durable queue, and await all confirmations."""
    import amqp

    queue = queue or job.queue
    with connected(job) as connection:
        channel = connection.channel()
        if not declared:
            declare(channel, job, queue, arguments)
        channel.confirm_select()
        confirmed = [0]
        channel.events["basic_ack"].add(lambda tag, multiple: confirmed.append(tag))
        options = {"content_type": "application/json", **properties}
        for number, body in enumerate(bodies or [job.body] * job.count, 1):
            message = amqp.Message(body, delivery_mode=2, **options)
            channel._basic_publish(message, exchange, queue)
            _take(connection)
            # A broker that is far behind stops reading, and after a second py-amqp
            # loses its connection.
            while number % 1000 == 0 and number - max(confirmed[-1000:]) > _AHEAD:
                connection.drain_events(timeout=30)
        while max(confirmed[-1000:]) < job.count:
            connection.drain_events(timeout=30)


def _take(connection: t.Any) -> None:
    """Read the confirmations that have come, so that they do not fill the socket."""
    import select

    while select.select([connection.sock], [], [], 0)[0]:
        connection.drain_events(timeout=30)


def declare(
    channel: t.Any,
    job: Job,
    queue: str,
    arguments: Mapping[str, t.Any] | None = None,
) -> None:
    """Declare a durable queue of the job's type."""
    quorum = job.broker == "rabbitmq-quorum"
    wanted = {**(arguments or {}), **({"x-queue-type": "quorum"} if quorum else {})}
    channel.queue_declare(queue, durable=True, auto_delete=False, arguments=wanted)


def connected(job: Job) -> t.Any:
    """Open a connection of py-amqp; a context manager."""
    import urllib.parse

    import amqp

    url = urllib.parse.urlsplit(job.url)
    connection = amqp.Connection(
        f"{url.hostname}:{url.port}", virtual_host=urllib.parse.unquote(url.path[1:])
    )
    connection.connect()
    # This option makes py-amqp check the socket before each publish.
    connection.client_properties["capabilities"].pop("connection.blocked", None)
    return connection


def _rabbitmq_depth(job: Job) -> int:
    with connected(job) as connection:
        channel = connection.channel()
        deadline = time.monotonic() + 10.0
        while True:
            found = channel.queue_declare(job.queue, passive=True)
            # The messages come back after the killed contender's connection is gone;
            # quorum queues update their counts at intervals.
            if not found.consumer_count or time.monotonic() > deadline:
                time.sleep(1.0 if job.broker == "rabbitmq-quorum" else 0.1)
                found = channel.queue_declare(job.queue, passive=True)
                return int(found.message_count)
            time.sleep(0.05)


def redis_client(job: Job) -> t.Any:
    import redis

    return redis.Redis.from_url(job.url)


def _redis_list(job: Job) -> None:
    """Fill a list in the layout of kombu's Redis transport."""
    import kombu

    with kombu.Connection(job.url) as connection:
        producer = connection.Producer()
        queue = kombu.Queue(job.queue)
        for _ in range(job.count):
            producer.publish(
                job.body,
                content_type="application/json",
                content_encoding="utf-8",
                routing_key=job.queue,
                declare=[queue],
            )


def _redis_list_depth(job: Job) -> int:
    client = redis_client(job)
    return int(client.llen(job.queue) + client.hlen("unacked"))


def _redis_stream(job: Job) -> None:
    client = redis_client(job)
    for start in range(0, job.count, 1000):
        pipe = client.pipeline(transaction=False)
        for _ in range(min(1000, job.count - start)):
            pipe.xadd(job.queue, {"body": job.body, "content-type": "application/json"})
        pipe.execute()


def _redis_stream_depth(job: Job) -> int:
    """Count unread and unacknowledged entries over all groups."""
    client = redis_client(job)
    groups = client.xinfo_groups(job.queue) if client.exists(job.queue) else []
    if not groups:
        return int(client.xlen(job.queue))
    return max(int(group["lag"] or 0) + int(group["pending"]) for group in groups)


def postgresql_count(job: Job, table: str, where: str = "true") -> int:
    """Count the rows of a table in the job's PostgreSQL database."""
    import psycopg

    with psycopg.connect(job.url) as connection:
        row = connection.execute(f"select count(*) from {table} where {where}")
        return int(row.fetchone()[0])


def sqlite_file(job: Job) -> str:
    """Return the path of the job's SQLite database."""
    return job.url.removeprefix("sqlite:///")


def sql_count(job: Job, table: str, where: str = "true") -> int:
    """Count the rows of a table in the job's database."""
    if job.broker == "postgresql":
        return postgresql_count(job, table, where)
    import contextlib
    import sqlite3

    with contextlib.closing(sqlite3.connect(sqlite_file(job))) as connection:
        row = connection.execute(f"select count(*) from {table} where {where}")
        return int(row.fetchone()[0])


def kafka_topic(job: Job) -> None:
    """Create the job's topic, unless it exists."""
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin import NewTopic

    admin = AdminClient({"bootstrap.servers": kafka_servers(job)})
    if job.queue not in admin.list_topics(timeout=10).topics:
        topic = NewTopic(job.queue, num_partitions=8, replication_factor=1)
        admin.create_topics([topic])[job.queue].result(10)


def _kafka(job: Job) -> None:
    from confluent_kafka import Producer

    kafka_topic(job)
    producer = Producer({"bootstrap.servers": kafka_servers(job), "linger.ms": 5})
    for number in range(job.count):
        while True:
            try:
                producer.produce(
                    job.queue,
                    job.body,
                    key=str(number),
                    headers={"content-type": "application/json"},
                )
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(60):
        raise RuntimeError("Kafka did not take all messages")


def kafka_servers(job: Job) -> str:
    return job.url.partition("://")[2].rstrip("/")


def _kafka_depth(job: Job) -> int:
    from confluent_kafka import Consumer
    from confluent_kafka import TopicPartition

    config = {"bootstrap.servers": kafka_servers(job), "group.id": job.queue}
    consumer = Consumer(config)
    partitions = consumer.list_topics(job.queue, timeout=10).topics[job.queue]
    wanted = [TopicPartition(job.queue, number) for number in partitions.partitions]
    total = 0
    for committed in consumer.committed(wanted, timeout=10):
        low, high = consumer.get_watermark_offsets(committed, timeout=10)
        total += high - max(low, committed.offset)
    consumer.close()
    return total
