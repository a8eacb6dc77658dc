"""Messages that a database refuses, beside others in one transaction."""

from __future__ import annotations

import gevent
import pytest

from flask_qconsume.broker.compose import compose
from flask_qconsume.errors import PublishRefused

from .tools import EXCHANGE
from .tools import QUEUE
from .tools import SqlQueue
from .tools import bodies
from .tools import look
from .tools import run


@pytest.fixture
def picky(queue: SqlQueue) -> SqlQueue:
    """A queue whose table refuses messages of the key ``bad``."""
    queue.publish(b"first")
    if queue.broker.capabilities.broker == "SQLite":
        run(
            queue,
            "CREATE TRIGGER picky BEFORE INSERT ON qconsume_message"
            " WHEN NEW.key = 'bad' BEGIN SELECT RAISE(ABORT, 'no bad keys'); END",
        )
    else:
        check = "CHECK (key <> 'bad')"
        run(queue, f"ALTER TABLE qconsume_message ADD CONSTRAINT picky {check}")
    return queue


def test_a_refused_message_fails_alone(picky: SqlQueue) -> None:
    keys = ("a", "bad", "b", "bad", "c")
    messages = [compose(EXCHANGE, QUEUE, key, key=key) for key in keys]
    errors = picky.broker.publish(messages, 20)
    assert [isinstance(error, PublishRefused) for error in errors] == [
        *(False, True, False, True, False),
    ]
    found = bodies(look(picky.link()))
    assert found == [b"first", b'"a"', b'"b"', b'"c"']


def test_callers_beside_a_refused_message_are_confirmed(picky: SqlQueue) -> None:
    def publish(key: str) -> Exception | None:
        (error,) = picky.broker.publish([compose(EXCHANGE, QUEUE, key, key=key)], 20)
        return error

    callers = [gevent.spawn(publish, key) for key in ("a", "bad", "b", "bad") * 5]
    errors = [caller.get(timeout=30) for caller in callers]
    assert [error is None for error in errors] == [True, False] * 10


def test_a_key_may_hold_any_character(queue: SqlQueue) -> None:
    queue.publish("x", key="a\0b")
    (delivery,) = look(queue.link())
    assert delivery.message.key == "a\0b"
