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
from flask_qconsume.appconsumers import AppConsumers
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
    """Kind of the broker, and its URL."""
    if request.param == "kafka":
        request.getfixturevalue("kafka_prefix")
        return request.param, request.getfixturevalue("kafka_url")
    if request.param == "rabbitmq":
        return request.param, request.getfixturevalue("rabbitmq_url")
    url: str = request.getfixturevalue("redis_url")
    return request.param, url.replace("redis:", f"{request.param}:")


@pytest.mark.broker
def test_the_counts_need_no_worker(
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
    _move_to_suspects(consumers, bill, time.time() - 90)

    result = invoke(app, "status", "orders.bill", "--json")
    assert result.exit_code == 0, result.output
    (counts,) = map(json.loads, result.output.splitlines())
    oldest, suspected = counts.pop("oldest"), counts.pop("oldest_suspect")
    on_rabbitmq, on_redis = kind == "rabbitmq", kind.startswith("redis")
    nothing = {"retries": {}, "delayed": {}, "refused": None}
    assert counts == {
        "consumer": "orders.bill",
        "queue": bill.name,
        "waiting": 2,
        "delayed": None if on_rabbitmq else 0,
        "in_hand": 0 if on_redis else None,
        "suspects": 1,
        "dead_letters": 0,
        "lag": 2 if kind == "kafka" else None,
        "held_back_for_the_app": nothing if on_rabbitmq else None,
    }
    assert suspected is None if on_rabbitmq else 90 <= suspected < 600
    assert oldest is None if on_rabbitmq else 0 <= oldest < 60
    table = invoke(app, "status").output
    assert ("unknown" in table) == (not on_redis)
    assert table.splitlines()[0].split() == [
        *("Consumer", "Queue", "Waiting", "Oldest", "Delayed", "In", "hand"),
        *("Suspects", "Oldest", "suspect", "Dead", "letters"),
        *(["Lag"] if kind == "kafka" else []),
    ]
    table = table.partition("\n\n")[0]
    assert [line.split()[0] for line in table.splitlines()[2:]] == [
        *("orders.bill", "orders.audit")
    ]


@pytest.mark.broker
def test_messages_held_back_and_in_hand_are_counted(
    broker: tuple[str, str], make_app: MakeApp, request: pytest.FixtureRequest
) -> None:
    """A count that the broker cannot tell is never 0."""
    kind, url = broker
    prefix = request.getfixturevalue("kafka_prefix") if kind == "kafka" else "x."
    app = make_app(BROKER_URL=url, QUEUE_PREFIX=prefix)
    consumers = app.extensions["qconsume"]
    plan = consumers.topology.queue(f"{prefix}bill")
    on_rabbitmq = kind == "rabbitmq"
    consumers.broker.declare()
    with hold_messages(consumers, plan, 5) as (link, deliveries):
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
        counts = read_status(app)
        assert counts["dead_letters"] == 1
        assert counts["delayed"] == (None if on_rabbitmq else 2)
        if kind.startswith("redis"):
            assert (counts["waiting"], counts["in_hand"]) == (0, 2)
        else:
            assert counts["in_hand"] is None
        if on_rabbitmq:
            held_back = {"retries": {"1024": 2}, "delayed": {}, "refused": None}
            assert counts["held_back_for_the_app"] == held_back
            table = invoke(app, "status").output
            assert "retries           2 (2 of up to 17.1 min)" in table
            assert "refused by a full or missing queue: unknown, without" in table


def read_status(app: flask.Flask) -> dict[str, t.Any]:
    result = invoke(app, "status", "orders.bill", "--json")
    assert result.exit_code == 0, result.output
    counts: dict[str, t.Any] = json.loads(result.output)
    return counts


@contextlib.contextmanager
def hold_messages(
    consumers: t.Any, plan: QueuePlan, number: int
) -> t.Iterator[tuple[Link, list[Delivery]]]:
    """Publish a number of messages, and hold them unsettled."""
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
def test_the_management_api_of_rabbitmq_gives_further_counts(
    make_app: MakeApp, tmp_path: pathlib.Path, rabbitmq: RabbitMQ
) -> None:
    # Each look-up of a missing queue or of a lock needs a new channel.
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
        with hold_messages(consumers, plan, 3):
            wait_for(lambda: read_status(app)["in_hand"] == 3, 30)
            (status,) = consumers.broker.read_backlog([plan], 10.0)
            assert (status.waiting, status.in_hand) == (0, 3)
            # A delayed message for a queue that does not exist.
            consumers.publish("missing", 1, exchange="", delay=0.1)
            wait_for(lambda: count_refused(app) == 1, 30)
            assert "queue: 1" in invoke(app, "status").output
        _check_held_dead_letters(consumers, plan)
        _check_policies_and_streams(vhost, app)
        for wrong in (url.replace("guest@", "no@"), url.replace("http:", "https:")):
            app = make_app(BROKER_URL=vhost.url, MANAGEMENT_URL=wrong)
            result = invoke(app, "status")
            assert result.exit_code == 1
            assert "'QCONSUME_MANAGEMENT_URL'" in result.output
            assert "guest:" not in result.output


def _check_held_dead_letters(consumers: AppConsumers, plan: QueuePlan) -> None:
    """Dead letters that another command holds are counted by the management API."""

    def count() -> int | None:
        return consumers.broker.read_backlog([plan], 10.0)[0].dead_letters

    for number in range(3):
        consumers.publish(plan.dead, number, exchange="")
    wait_for(lambda: count() == 3, 30)
    looking = iter(consumers.broker.dead_letters(plan))
    next(looking)
    wait_for(lambda: count() == 3, 30)
    assert len(list(looking)) == 2


def _check_policies_and_streams(vhost: Vhost, app: flask.Flask) -> None:
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


def count_refused(app: flask.Flask) -> int | None:
    count: int | None = read_status(app)["held_back_for_the_app"]["refused"]
    return count


@pytest.mark.broker
def test_dead_letters_are_counted_while_another_command_reads_them(
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
    counting = gevent.spawn(read_status, app)
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
        result = json.loads(invoke(app, "status", "--json").output)
        assert (result["waiting"], result["suspects"]) == (None, 0)
    finally:
        link.close()
        consumers.close()


def _move_to_suspects(consumers: object, plan: object, since: float) -> None:
    """Move a message to the suspects, as a worker does after a death."""
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


def test_an_age_is_empty_if_nothing_waits() -> None:
    none = ConsumerStatus("bill", "bill", 0, None, 4, 3, 0, None, 1, None)
    assert _format_row(none)[2:8] == ["0", "", "4", "3", "0", ""]
    some = none._replace(waiting=5, oldest=7.0, suspects=2, oldest_suspect=130.0)
    assert _format_row(some)[2:8] == ["5", "7 s", "4", "3", "2", "2.2 min"]
    dateless = some._replace(oldest=None, oldest_suspect=None)
    assert _format_row(dateless)[2:8] == ["5", "unknown", "4", "3", "2", "unknown"]
    unknown = none._replace(waiting=None, suspects=None)
    assert _format_row(unknown)[2:8] == [
        *("unknown", "unknown", "4", "3", "unknown", "unknown")
    ]


def test_a_wait_queue_without_a_count_is_listed() -> None:
    text = _describe_held_back(HeldBack({4: 2, 30: None}, {4: 2, 30: 3}, 0))
    assert "retries           unknown (2 of up to 4 s, unknown of up to 30 s)" in text
    assert "delayed messages  5 (2 of up to 4 s, 3 of up to 30 s)" in text


def test_memory_is_refused_with_the_reason(make_app: MakeApp) -> None:
    done = invoke(make_app(), "status")
    assert done.exit_code == 1
    assert "Cannot count messages" in done.output


def test_an_unknown_consumer_is_an_error(on_redis: Commands) -> None:
    done = on_redis.run("status", "orders.bil")
    assert done.returncode == 1
    assert "did you mean 'orders.bill'?" in done.stderr


def test_a_redis_that_evicts_is_reported(make_app: MakeApp, own_redis: Redis) -> None:
    own_redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    app = make_app(BROKER_URL=own_redis.url)
    result = invoke(app, "status", "--json")
    assert result.exit_code == 0
    assert "MESSAGES CAN BE LOST" in result.stderr
    assert "LOST" not in result.stdout
    plan = " ".join(invoke(app, "plan").output.split())
    assert "Limits of this server warning MESSAGES CAN BE LOST: Redis has the" in plan
