"""Messages that lost their connection are remembered until they come again."""

from __future__ import annotations

import typing as t

from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.message import Message
from flask_qconsume.running.redeliveries import RedeliveryMemory


def delivery(id: str | None, **fields: t.Any) -> Delivery:
    link: t.Any = None  # Nothing is sent here.
    return Delivery(link, 1, Message(**{"raw": b"1", "queue": "q", "id": id, **fields}))


def test_an_unsettled_message_is_known_once() -> None:
    memory = RedeliveryMemory(2)
    memory.add_unsettled(["a", None])

    assert memory.take_unsettled(delivery("a"))
    assert not memory.take_unsettled(delivery("a"))
    assert not memory.take_unsettled(delivery(None))


def test_a_settlement_is_for_the_same_message_only() -> None:
    memory = RedeliveryMemory(2)
    memory.add_settlement(delivery("a"))

    assert memory.take_settlement(delivery("a")) is None
    assert memory.take_settlement(delivery("b", redelivered=True)) is None
    assert memory.take_settlement(delivery("a", redelivered=True, raw=b"2")) is None
    assert memory.take_settlement(delivery("a", redelivered=True, attempt=2)) is None
    again = delivery("a", redelivered=True)
    assert memory.take_settlement(again) is again
    assert memory.take_settlement(again) is None


def test_a_forward_is_repeated_for_the_new_delivery() -> None:
    memory = RedeliveryMemory(2)
    memory.add_settlement(Forward(delivery("a"), Lane.DEAD, {"x": 1}, expires=5))
    again = delivery("a", redelivered=True)

    assert memory.take_settlement(again) == Forward(
        again, Lane.DEAD, {"x": 1}, expires=5
    )


def test_no_more_settlements_are_kept_than_two_connections_can_hold() -> None:
    memory = RedeliveryMemory(2)
    for number in range(100):
        memory.add_settlement(delivery(str(number)))

    assert len(memory._settlements) <= 4
    assert memory.take_settlement(delivery("99", redelivered=True)) is not None
