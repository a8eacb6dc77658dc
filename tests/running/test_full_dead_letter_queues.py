"""A full dead-letter queue, on RabbitMQ: neighbours are handled, nothing is lost."""

from __future__ import annotations

import json
import typing as t

import pytest

from flask_qconsume.broker.base import DeadLetter
from flask_qconsume.running.backoff import Backoff

from ..servers.rabbitmq import Vhost
from ..waiting import wait_for
from .conftest import Bench


def limit(vhost: Vhost, pattern: str, length: int) -> None:
    """Let queues refuse what is beyond so many messages."""
    arguments = {"max-length": length, "overflow": "reject-publish"}
    what = ("full", pattern, json.dumps(arguments), "--apply-to", "queues")
    vhost.server.ctl("set_policy", "--vhost", vhost.name, *what)


@pytest.fixture
def shop(bench: Bench, rabbitmq_vhost: Vhost, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A consumer of four at once, whose bad orders become dead letters; one fits."""
    monkeypatch.setattr("flask_qconsume.broker.delivery.PARKED_FOR", 1.0)
    monkeypatch.setattr(
        "flask_qconsume.running.settler.Backoff", lambda: Backoff(0.1, 0.2)
    )
    bench.config["QCONSUME_BROKER_URL"] = rabbitmq_vhost.url
    bench.handled = []  # type: ignore[attr-defined]

    @bench.qconsume.consumer("billing", concurrency=4, retry={"max_attempts": 1})
    def bill(order: str) -> None:
        bench.handled.append(order)  # type: ignore[attr-defined]
        if order.startswith("bad"):
            raise ValueError

    bench.consumers.broker.declare()
    limit(rabbitmq_vhost, r"\.dead$", 1)
    return bench


def test_neighbours_are_handled_and_dead_letters_arrive_in_the_end(shop: Bench) -> None:
    orders = [f"bad {n}" for n in range(12)] + [f"good {n}" for n in range(12)]
    worker = shop.start()
    for order in orders:
        shop.publish("billing", order)
    counts = worker.subscriptions[0].counts
    wait_for(lambda: counts["ack"] == 12, 30)
    wait_for(lambda: "dead-letter queue refuses" in worker.watch.verdict.to_json())
    assert worker.watch.verdict.live

    letters: dict[t.Any, DeadLetter] = {}
    wait_for(lambda: len(take_out(shop, letters)) == 12, 60)
    assert sorted(letter.message.raw for letter in letters.values()) == sorted(
        json.dumps(order).encode() for order in orders if order.startswith("bad")
    )
    for letter in letters.values():
        assert letter.headers["x-qconsume-error"].startswith("builtins.ValueError")
        assert "x-qconsume-parked" not in letter.headers
    handled = shop.handled  # type: ignore[attr-defined]
    assert sorted(handled) == sorted(orders)  # Each of them once.
    assert worker.stop() is True


def take_out(shop: Bench, letters: dict[t.Any, DeadLetter]) -> dict[t.Any, DeadLetter]:
    """Make room in the dead-letter queue, and add what was there."""
    plan = shop.consumers.topology.queue("billing")
    found = shop.consumers.broker.dead_letters(plan)

    def note(letter: DeadLetter) -> bool:
        letters[letter.message.id] = letter
        return True

    found.take(note, False)
    return letters


def test_a_stop_that_could_not_settle_says_so(shop: Bench) -> None:
    worker = shop.start()
    shop.publish("billing", "bad 1")
    wait_for(lambda: len(shop.dead("billing")) == 1)
    shop.publish("billing", "bad 2")
    shop.publish("billing", "bad 3")
    wait_for(lambda: worker.subscriptions[0].puts_off)

    assert worker.stop() is False
