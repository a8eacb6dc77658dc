"""What is known of messages whose connection was lost."""

from __future__ import annotations

import typing as t

from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.message import Message
from flask_qconsume.running.redeliveries import Survivors


def delivery(id: str | None, **fields: t.Any) -> Delivery:
    link: t.Any = None  # Nothing is sent here.
    return Delivery(link, 1, Message(**{"raw": b"1", "queue": "q", "id": id, **fields}))


def test_a_survivor_is_known_once() -> None:
    survivors = Survivors(2)
    survivors.remember(["a", None])

    assert survivors.include(delivery("a"))
    assert not survivors.include(delivery("a"))
    assert not survivors.include(delivery(None))


def test_an_answer_is_given_to_the_same_message_only() -> None:
    survivors = Survivors(2)
    survivors.keep_answer(delivery("a"))

    assert survivors.answer_to(delivery("a")) is None
    assert survivors.answer_to(delivery("b", redelivered=True)) is None
    assert survivors.answer_to(delivery("a", redelivered=True, raw=b"2")) is None
    assert survivors.answer_to(delivery("a", redelivered=True, attempt=2)) is None
    again = delivery("a", redelivered=True)
    assert survivors.answer_to(again) is again
    assert survivors.answer_to(again) is None


def test_an_answer_that_forwards_goes_with_the_new_delivery() -> None:
    survivors = Survivors(2)
    survivors.keep_answer(Forward(delivery("a"), Lane.DEAD, {"x": 1}, expires=5))
    again = delivery("a", redelivered=True)

    assert survivors.answer_to(again) == Forward(again, Lane.DEAD, {"x": 1}, expires=5)


def test_no_more_bodies_are_kept_than_two_connections_can_hold() -> None:
    survivors = Survivors(2)
    for number in range(100):
        survivors.keep_answer(delivery(str(number)))

    assert len(survivors._answers) <= 4
    assert survivors.answer_to(delivery("99", redelivered=True)) is not None
