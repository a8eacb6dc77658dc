"""Bad messages of each kind become dead letters, and block no good message."""

from __future__ import annotations

import pickle
import subprocess
import typing as t

import amqp
import confluent_kafka
import pytest

from flask_qconsume.broker.dead_letters import DeadLetter

from ..brokers.rabbitmq.rabbit import raw_channel
from ..brokers.rabbitmq.test_link import nested
from ..brokers.rabbitmq.test_link import publish_raw
from ..brokers.rabbitmq.test_link import short_property
from ..brokers.rabbitmq.test_link import table_property
from ..servers.kafka import Kafka
from ..servers.rabbitmq import Vhost
from ..servers.redis import Redis
from ..waiting import wait_for
from .conftest import Deployment
from .conftest import MakeDeployment
from .conftest import on_each_broker

GOOD = range(1000)

JSON = "application/json"

#: Name → body, content type, and a part of the dead letter's reason.
BODIES: dict[str, tuple[bytes, str, str]] = {
    "not JSON": (b"{not json", JSON, "the body is no application/json"),
    "invalid UTF-8": (b'{"n": "\xff\xfe"}', JSON, "the body is no application/json"),
    "empty": (b"", JSON, "it is empty"),
    "pickle": (
        pickle.dumps({"n": 1}),
        "application/x-python-serialize",
        "'application/x-python-serialize' is not accepted",
    ),
    "unknown type": (b"<n/>", "application/xml", "'application/xml' is not accepted"),
    "too large": (b'"' + b"x" * 2_000_000 + b'"', JSON, "QCONSUME_MAX_MESSAGE_SIZE"),
    "nested": (b"[" * 100_000 + b"]" * 100_000, JSON, "the body is no"),
    "huge number": (b'{"n": ' + b"9" * 100_000 + b"}", JSON, "the body is no"),
    "msgpack": (b"\xc1\xc1", "application/msgpack", "the body is no"),
    # The handler fails on these: all attempts are used, then a dead letter is made.
    "wrong shape": (b"[1, 2, 3]", JSON, "failed 2 of 2 attempts"),
}

#: The handler's task, and the reason of the dead letter.
DEEDS = {
    "exit": "failed 2 of 2 attempts",
    "never": "failed 2 of 2 attempts",
    "swallow": "failed 2 of 2 attempts",
    "reject": "told to reject",
}


@pytest.mark.deadline(300)
@on_each_broker("postgresql")
def test_poison_blocks_no_message_and_is_kept(
    make_deployment: MakeDeployment, broker: str
) -> None:
    deployment = make_deployment(
        broker,
        MAX_MESSAGE_SIZE=1_000_000,
        TIMEOUT=1,
        # Longer than the hog halts the process.
        LEASE=30,
        RETRY={"max_attempts": 2, "min_delay": 0.1, "factor": 1},
    )
    worker = deployment.fleet.start()
    deployment.publish(GOOD[:500])
    _publish_poison(deployment)
    deployment.publish([9000], do="hog", seconds=2)
    deployment.publish(GOOD[500:])
    deployment.await_done([*GOOD, 9000], timeout=120)
    wait_for(
        lambda: len(deployment.dead()) == len(BODIES) + len(DEEDS),
        timeout=60,
        message=lambda: repr([dead.headers for dead in deployment.dead()]),
    )

    reasons = {
        dead.message.headers["name"]: _reason(dead) for dead in deployment.dead()
    }
    for name, (_, _, reason) in BODIES.items():
        assert reason in reasons[name], name
    for name, reason in DEEDS.items():
        assert reason in reasons[name], name
    bodies = {
        dead.message.headers["name"]: dead.message.raw for dead in deployment.dead()
    }
    assert all(bodies[name] == body for name, (body, _, _) in BODIES.items())
    assert {deployment.ledger.counted()[n] for n in GOOD} == {1}
    assert deployment.fleet.term(worker) == 0


def _publish_poison(deployment: Deployment) -> None:
    messages: list[tuple[str, t.Any, dict[str, t.Any]]] = [
        ("work", body, {"content_type": kind, "headers": {"name": name}})
        for name, (body, kind, _) in BODIES.items()
    ]
    messages += [
        ("work", {"n": 9001, "do": name}, {"headers": {"name": name}}) for name in DEEDS
    ]
    deployment.consumers.publish_many(messages)


def _reason(dead: DeadLetter) -> str:
    return str(dead.headers["x-qconsume-reason"])


#: Values of our headers that a foreign program may set.
NONSENSE = {
    "x-qconsume-attempt": "many",
    "x-qconsume-deaths": -3,
    "x-qconsume-expires-at": "never",
    "x-qconsume-published-at": {"a": 1},
    "x-qconsume-routing-key": 5,
    "x-qconsume-exchange": None,
}

OF_KAFKA = ["x-qconsume-due", "x-qconsume-json", "x-qconsume-bytes"]


@pytest.mark.parametrize("broker", ["quorum", "classic"])
def test_foreign_messages_on_rabbitmq_block_no_message(
    make_deployment: MakeDeployment, own_rabbitmq_vhost: Vhost, broker: str
) -> None:
    deployment = make_deployment(broker, RETRY={"max_attempts": 1})
    worker = deployment.fleet.start()
    url, queue = own_rabbitmq_vhost.url, b"work"
    deployment.publish(range(10))
    publish_raw(
        url, short_property(0x8000, b"caf\xe9"), b'{"n": 100}', key=queue, exchange=""
    )
    publish_raw(
        url, table_property(nested(2000)), b'{"n": 101}', key=queue, exchange=""
    )
    publish_raw(url, b"\x00\x00", b"", key=queue, exchange="")
    with raw_channel(url) as channel:
        channel.basic_publish(
            amqp.Message(b'{"n": 102}', application_headers=NONSENSE), "", "work"
        )
        channel.basic_publish(amqp.Message(b'{"n": 103}'), "", "work")
    deployment.publish(range(10, 20))
    deployment.await_done([*range(20), 102, 103])
    wait_for(lambda: len(deployment.dead()) == 3)

    assert [dead.message.raw for dead in deployment.dead()] == [
        b'{"n": 100}',
        b'{"n": 101}',
        b"",
    ]
    assert deployment.fleet.term(worker) == 0


def test_foreign_entries_of_streams_block_no_message(
    make_deployment: MakeDeployment, own_redis: Redis
) -> None:
    deployment = make_deployment("streams", RETRY={"max_attempts": 1})
    worker = deployment.fleet.start()
    deployment.publish(range(10))
    garbage = ["no json", "", "\x00\xff", "[1]"]
    for body in ['{"n": 100}', *garbage]:
        own_redis.command("XADD", "work", "*", "body", body, "x-qconsume-attempt", "x")
    own_redis.command("XADD", "work", "*", "x-qconsume", "{", "neither", "body")
    deployment.publish(range(10, 20))
    deployment.await_done([*range(20), 100])
    wait_for(lambda: len(deployment.dead()) == len(garbage) + 1)

    bodies = [dead.message.raw.decode() for dead in deployment.dead()]
    assert bodies[: len(garbage)] == garbage
    assert deployment.fleet.term(worker) == 0


def test_foreign_records_on_kafka_block_no_message(
    make_deployment: MakeDeployment, own_kafka: Kafka
) -> None:
    deployment = make_deployment("kafka", RETRY={"max_attempts": 1})
    worker = deployment.fleet.start()
    deployment.publish(range(10))
    nonsense = [(name, b"\xff\xfe{") for name in (*NONSENSE, *OF_KAFKA)]
    nonsense += [(name, b"[5, null") for name in (*NONSENSE, *OF_KAFKA)]
    settings = {"bootstrap.servers": own_kafka.address, "log_level": 0}
    producer = confluent_kafka.Producer(settings)
    for value in [b'{"n": 100}', b"no json", b"", None, b"\x00\xff", b"[1]"]:
        producer.produce("work", value, key=b"\xff", headers=nonsense)
    producer.produce("work", b'{"n": 101}', headers=[("x", None), ("x", b"\xff")])
    assert producer.flush(30) == 0
    deployment.publish(range(10, 20))
    deployment.await_done([*range(20), 100, 101])
    wait_for(lambda: len(deployment.dead()) == 5)

    bodies = {dead.message.raw for dead in deployment.dead()}
    assert bodies == {b"no json", b"", b"\x00\xff", b"[1]"}
    assert [dead.message.tombstone for dead in deployment.dead()].count(True) == 1
    assert deployment.fleet.term(worker) == 0


#: Columns of rows that foreign programs may set, in SQL. All blocks no message.
ODD_ROWS = [
    ("meta", "'no json'"),
    ("meta", "'[1]'"),
    ("meta", "'null'"),
    ("meta", """'{"headers": 5, "id": [], "attempt": "many"}'"""),
    ("rank", "-30000"),
    ("rank", "30000"),
    ("redelivered", "true"),
    ("key", "''"),
    ("owner", "4711"),
    ("due", "1.5"),
    ("expires", "1e18"),
]


def insert_foreign(run: t.Callable[[str], object]) -> None:
    """Insert good rows, rows with odd columns, and bodies that are no JSON."""
    into = "INSERT INTO qconsume_message (queue, body"
    run(f"""{into}) VALUES ('work', '{{"n": 100}}')""")
    for n, (column, value) in enumerate(ODD_ROWS, 101):
        run(f"""{into}, {column}) VALUES ('work', '{{"n": {n}}}', {value})""")
    for body in GARBAGE:
        run(f"{into}) VALUES ('work', '{body}')")


GARBAGE = ["no json", "", "[1]", "5"]


@pytest.mark.parametrize("broker", ["postgresql", "sqlite"])
def test_foreign_rows_of_databases_block_no_message(
    make_deployment: MakeDeployment, broker: str
) -> None:
    """Rows that the shells of PostgreSQL and of SQLite insert."""
    deployment = make_deployment(broker, RETRY={"max_attempts": 1})
    worker = deployment.fleet.start()
    deployment.publish(range(10))
    insert_foreign(make_shell(deployment))
    deployment.publish(range(10, 20))
    numbers = [*range(20), *range(100, 101 + len(ODD_ROWS))]
    wait_for(lambda: len(deployment.dead()) >= len(GARBAGE), 30)
    wait_for(lambda: deployment.consumers.broker.depth("work") == 0, 30)
    deployment.await_done(numbers)

    dead = [letter.message.raw.decode() for letter in deployment.dead()]
    assert sorted(dead) == sorted(GARBAGE)
    assert deployment.fleet.term(worker) == 0


def make_shell(deployment: Deployment) -> t.Callable[[str], object]:
    """Return a function that runs a statement in the database's own shell."""
    if deployment.database is not None:
        command = ["psql", "--quiet", deployment.database.url, "-c"]
    else:
        command = ["sqlite3", str(deployment.server.path)]
    return lambda statement: subprocess.run([*command, statement], check=True)


def test_foreign_items_of_redis_lists_block_no_message(
    make_deployment: MakeDeployment, own_redis: Redis
) -> None:
    deployment = make_deployment("redis", RETRY={"max_attempts": 1})
    worker = deployment.fleet.start()
    deployment.publish(range(10))
    garbage = ["no json", "{}", '{"body": 5, "properties": []}', "\x00\xff", "[1]"]
    for element in ['{"n": 100}', *garbage]:
        own_redis.command("LPUSH", "work", element)
    deployment.publish(range(10, 20))
    deployment.await_done([*range(20), 100])
    wait_for(lambda: len(deployment.dead()) == len(garbage))

    assert [dead.message.raw.decode() for dead in deployment.dead()] == garbage
    assert deployment.fleet.term(worker) == 0
