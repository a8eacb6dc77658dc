"""`flask qconsume status`."""

from __future__ import annotations

import json
import time

import pytest

from flask_qconsume.broker import headers
from flask_qconsume.cli.status import Standing
from flask_qconsume.cli.status import _row

from ..servers import Redis
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
    assert said == {
        "consumer": "orders.bill",
        "queue": bill.name,
        "waiting": 2,
        "suspects": 1,
        "dead_letters": 0,
    }
    assert oldest is None if kind == "rabbitmq" else 90 <= oldest < 600
    table = invoke(app, "status").output
    assert ("unknown" in table) == (kind == "rabbitmq")
    assert table.splitlines()[0].split() == [
        *("Consumer", "Queue", "Waiting", "Suspects", "Oldest", "Dead", "letters")
    ]
    assert [line.split()[0] for line in table.splitlines()[2:]] == [
        *("orders.bill", "orders.audit")
    ]


def _suspect(consumers: object, plan: object, since: float) -> None:
    """Move one message to the lane, as the worker does after a death."""
    from flask_qconsume.broker.delivery import Forward
    from flask_qconsume.broker.delivery import Lane

    broker = consumers.broker  # type: ignore[attr-defined]
    link = broker.connect(plan, Lane.MAIN, 1)
    try:
        found = wait_for(lambda: link.read(1), 30)
        changed = headers.suspected(found[0].message, 0, since)
        assert link.forward([Forward(found[0], Lane.SUSPECTS, changed)]) == [None]
        link.pause()
    finally:
        link.close()
    wait_for(lambda: broker.depth(plan.name) == 2, 30)  # type: ignore[attr-defined]


def test_what_has_none_says_nothing_of_an_age() -> None:
    assert _row(Standing("bill", "bill", 5, 0, None, 1))[2:] == ["5", "0", "", "1"]
    assert _row(Standing("bill", "bill", 5, 2, 130.0, 1))[4] == "2.2 min"


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
    assert "But warning MESSAGES CAN BE LOST: Redis has the 'maxmemory-policy'" in plan
