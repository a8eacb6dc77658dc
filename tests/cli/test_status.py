"""`flask qconsume status`."""

from __future__ import annotations

import contextlib
import json
import pathlib
import time
import typing as t

import flask
import gevent
import pytest
from kombu import Queue

from flask_qconsume import QConsume
from flask_qconsume.broker import headers
from flask_qconsume.broker.base import HeldBack
from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.link import Link
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.cli.status import ConsumerStatus
from flask_qconsume.cli.status import _describe_held_back
from flask_qconsume.cli.status import _format_row

from ..brokers.rabbitmq.rabbit import raw_channel
from ..servers import RabbitMQ
from ..servers import Redis
from ..servers import Vhost
from ..waiting import wait_for
from .commands import Commands
from .commands import invoke
from .conftest import MakeApp


@pytest.fixture(params=["redis", "redis-streams", "rabbitmq", "kafka"])
def broker(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Its kind, and where it is."""
    if request.param == "kafka":
        request.getfixturevalue("kafka_prefix")
        return request.param, request.getfixturevalue("kafka_url")
    if request.param == "rabbitmq":
        return request.param, request.getfixturevalue("rabbitmq_url")
    url: str = request.getfixturevalue("redis_url")
    return request.param, url.replace("redis:", f"{request.param}:")


@pytest.mark.broker
def test_it_needs_no_worker(
    broker: tuple[str, str], make_app: MakeApp, request: pytest.FixtureRequest
) -> None:
    kind, url = broker
    prefix = request.getfixturevalue("kafka_prefix") if kind == "kafka" else "x."
    app = make_app(BROKER_URL=url, QUEUE_PREFIX=prefix)
    consumers = app.extensions["qconsume"]
    consumers.broker.declare()
    bill = consumers.topology.queue(f"{prefix}bill")
    for number in range(3):
        consumers.publish(bill.name, number, exchange="")
    _suspect(consumers, bill, time.time() - 90)

    told = invoke(app, "status", "orders.bill", "--json")
    assert told.exit_code == 0, told.output
    (said,) = map(json.loads, told.output.splitlines())
    oldest = said.pop("oldest")
    on_rabbitmq, on_redis = kind == "rabbitmq", kind.startswith("redis")
    nothing = {"retries": {}, "delayed": {}, "refused": None}
    assert said == {
        "consumer": "orders.bill",
        "queue": bill.name,
        "waiting": 2,
        "delayed": None if on_rabbitmq else 0,
        "in_hand": 0 if on_redis else None,
        "suspects": 1,
        "dead_letters": 0,
        "held_back_for_the_app": nothing if on_rabbitmq else None,
    }
    assert oldest is None if on_rabbitmq else 90 <= oldest < 600
    table = invoke(app, "status").output
    assert ("unknown" in table) == (not on_redis)
    assert table.splitlines()[0].split() == [
        *("Consumer", "Queue", "Waiting", "Delayed", "In", "hand"),
        *("Suspects", "Oldest", "Dead", "letters"),
    ]
    table = table.partition("\n\n")[0]
    assert [line.split()[0] for line in table.splitlines()[2:]] == [
        *("orders.bill", "orders.audit")
    ]


@pytest.mark.broker
def test_it_counts_what_is_held_back_and_in_hand(
    broker: tuple[str, str], make_app: MakeApp, request: pytest.FixtureRequest
) -> None:
    """Never 0 where it cannot tell."""
    kind, url = broker
    prefix = request.getfixturevalue("kafka_prefix") if kind == "kafka" else "x."
    app = make_app(BROKER_URL=url, QUEUE_PREFIX=prefix)
    consumers = app.extensions["qconsume"]
    plan = consumers.topology.queue(f"{prefix}bill")
    on_rabbitmq = kind == "rabbitmq"
    consumers.broker.declare()
    with held(consumers, plan, 5) as (link, deliveries):
        for delivery in deliveries[:2]:
            changed = headers.make_retry_headers(delivery.message, 2)
            forward = Forward(delivery, Lane.MAIN, changed, delay=600)
            assert link.forward([forward]) == [None]
        dead = headers.make_dead_letter_headers(
            *(deliveries[2].message, "orders.bill", plan.name, "bad"),
            *(ValueError("no"), 1.5),
        )
        buried = Forward(deliveries[2], Lane.DEAD, dead, expires=600)
        assert link.forward([buried]) == [None]
        said = standing(app)
        assert said["dead_letters"] == 1
        assert said["delayed"] == (None if on_rabbitmq else 2)
        if kind.startswith("redis"):
            assert (said["waiting"], said["in_hand"]) == (0, 2)
        else:
            assert said["in_hand"] is None
        if on_rabbitmq:
            held_back = {"retries": {"1024": 2}, "delayed": {}, "refused": None}
            assert said["held_back_for_the_app"] == held_back
            table = invoke(app, "status").output
            assert "retries           2 (2 of up to 17.1 min)" in table
            assert "refused by a full or missing queue: unknown, without" in table


def standing(app: flask.Flask) -> dict[str, t.Any]:
    told = invoke(app, "status", "orders.bill", "--json")
    assert told.exit_code == 0, told.output
    said: dict[str, t.Any] = json.loads(told.output)
    return said


@contextlib.contextmanager
def held(
    consumers: t.Any, plan: QueuePlan, number: int
) -> t.Iterator[tuple[Link, list[Delivery]]]:
    """That many messages of a queue, in the hand of a link."""
    for each in range(number):
        consumers.publish(plan.name, each, exchange="")
    link = consumers.broker.connect(plan, Lane.MAIN, number)
    try:
        found: list[Delivery] = []
        while len(found) < number:
            found += link.read(number)
        yield link, found
    finally:
        link.close()


@pytest.mark.broker
def test_the_management_of_rabbitmq_tells_what_amqp_does_not(
    make_app: MakeApp, tmp_path: pathlib.Path, rabbitmq: RabbitMQ
) -> None:
    # Each queue that is not there costs a channel, and each look at a lock.
    config = {"channel_max": "8"}
    with (
        RabbitMQ(tmp_path / "managed", config=config, management=True) as server,
        server.vhost("managed") as vhost,
    ):
        url = server.management_url
        app = make_app(BROKER_URL=vhost.url, MANAGEMENT_URL=url, EXCHANGE="shop")
        consumers = app.extensions["qconsume"]
        plan = consumers.topology.queue("bill")
        consumers.broker.declare()
        with held(consumers, plan, 3):
            wait_for(lambda: standing(app)["in_hand"] == 3, 30)
            # One that is due for a queue that is not there.
            consumers.publish("nobody", 1, exchange="", delay=0.1)
            wait_for(lambda: refused(app) == 1, 30)
            assert "queue: 1" in invoke(app, "status").output
        _check_what_an_operator_set(vhost, app)
        for wrong in (url.replace("guest@", "no@"), url.replace("http:", "https:")):
            app = make_app(BROKER_URL=vhost.url, MANAGEMENT_URL=wrong)
            told = invoke(app, "status")
            assert told.exit_code == 1
            assert "'QCONSUME_MANAGEMENT_URL'" in told.output
            assert "guest:" not in told.output


def _check_what_an_operator_set(vhost: Vhost, app: flask.Flask) -> None:
    assert "Limits of this server" not in invoke(app, "plan").output
    definition = ("^bill$", '{"max-length": 5}', "--apply-to", "queues")
    vhost.server.ctl("set_policy", "-p", vhost.name, "short", *definition)
    wait_for(lambda: "sets 'max-length' to 5" in invoke(app, "plan").output, 30)
    assert "Warning: A policy of the broker" in invoke(app, "status").output
    with raw_channel(vhost.url) as channel:
        arguments = {"x-queue-type": "stream"}
        channel.queue_declare(
            "log", durable=True, auto_delete=False, arguments=arguments
        )
    other = flask.Flask(__name__)
    other.config.update(app.config)
    given = Queue("log", no_declare=True)
    QConsume(other).add_consumer(given, print, name="read")
    wait_for(lambda: "is a stream" in invoke(other, "plan").output, 30)


def refused(app: flask.Flask) -> int | None:
    count: int | None = standing(app)["held_back_for_the_app"]["refused"]
    return count


@pytest.mark.broker
def test_dead_letters_that_are_being_read_are_counted_right(
    rabbitmq_url: str, make_app: MakeApp
) -> None:
    app = make_app(BROKER_URL=rabbitmq_url)
    consumers = app.extensions["qconsume"]
    plan = consumers.topology.queue("bill")
    consumers.broker.declare()
    for number in range(3):
        consumers.publish(plan.dead, number, exchange="")
    looking = iter(consumers.broker.dead_letters(plan))
    next(looking)
    counting = gevent.spawn(standing, app)
    counting.join(1)
    assert not counting.ready()
    assert len(list(looking)) == 2
    assert counting.get(timeout=30)["dead_letters"] == 3


@pytest.mark.broker
def test_an_exclusive_queue_of_another_connection_is_unknown(rabbitmq_url: str) -> None:
    app = flask.Flask(__name__)
    app.config["QCONSUME_BROKER_URL"] = rabbitmq_url
    given = Queue("theirs", exclusive=True)
    QConsume(app).add_consumer(given, print, name="read")
    consumers = app.extensions["qconsume"]
    link = consumers.broker.connect(consumers.topology.queues[0], Lane.MAIN, 1)
    try:
        told = json.loads(invoke(app, "status", "--json").output)
        assert (told["waiting"], told["suspects"]) == (None, 0)
    finally:
        link.close()
        consumers.close()


def _suspect(consumers: object, plan: object, since: float) -> None:
    """Move one message to the lane, as the worker does after a death."""
    broker = consumers.broker  # type: ignore[attr-defined]
    link = broker.connect(plan, Lane.MAIN, 1)
    try:
        found = wait_for(lambda: link.read(1), 30)
        changed = headers.make_suspect_headers(found[0].message, 0, since)
        assert link.forward([Forward(found[0], Lane.SUSPECTS, changed)]) == [None]
        link.pause()
    finally:
        link.close()
    wait_for(lambda: broker.depth(plan.name) == 2, 30)  # type: ignore[attr-defined]


def test_what_has_none_says_nothing_of_an_age() -> None:
    none = ConsumerStatus("bill", "bill", 5, 4, 3, 0, None, 1)
    assert _format_row(none)[2:] == ["5", "4", "3", "0", "", "1"]
    assert _format_row(none._replace(suspects=2, oldest=130.0))[6] == "2.2 min"
    assert _format_row(none._replace(suspects=2))[6] == "unknown"
    assert _format_row(none._replace(waiting=None, suspects=None))[2:7] == [
        *("unknown", "4", "3", "unknown", "unknown")
    ]


def test_a_wait_queue_that_cannot_be_counted_is_not_left_out() -> None:
    said = _describe_held_back(HeldBack({4: 2, 30: None}, {4: 2, 30: 3}, 0))
    assert "retries           unknown (2 of up to 4 s, unknown of up to 30 s)" in said
    assert "delayed messages  5 (2 of up to 4 s, 3 of up to 30 s)" in said


def test_memory_is_seen_by_its_own_process_only(make_app: MakeApp) -> None:
    done = invoke(make_app(), "status")
    assert done.exit_code == 1
    assert "Cannot count messages" in done.output


def test_an_unknown_consumer_is_told(on_redis: Commands) -> None:
    done = on_redis.run("status", "orders.bil")
    assert done.returncode == 1
    assert "did you mean 'orders.bill'?" in done.stderr


def test_a_redis_that_evicts_is_told(make_app: MakeApp, own_redis: Redis) -> None:
    own_redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    app = make_app(BROKER_URL=own_redis.url)
    told = invoke(app, "status", "--json")
    assert told.exit_code == 0
    assert "MESSAGES CAN BE LOST" in told.stderr
    assert "LOST" not in told.stdout
    plan = " ".join(invoke(app, "plan").output.split())
    assert "Limits of this server warning MESSAGES CAN BE LOST: Redis has the" in plan
