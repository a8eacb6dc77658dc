"""``current_message``: there while a message is handled, nowhere else."""

from __future__ import annotations

import contextlib
import typing as t

import gevent
import gevent.event
import pytest

from flask_qconsume import Message
from flask_qconsume import QConsume
from flask_qconsume import WorkerError
from flask_qconsume import current_message
from flask_qconsume import spawn
from flask_qconsume.handling.context import Handling
from flask_qconsume.handling.context import current
from flask_qconsume.registration.consumer import Consumer
from tests.apps import make_app

from .conftest import Desk


def make_consumer() -> Consumer:
    qconsume = QConsume()
    qconsume.add_consumer("billing", print, name="bill")
    return make_app(qconsume).extensions["qconsume"].consumers["bill"]


CONSUMER = make_consumer()


@contextlib.contextmanager
def handling(message: Message) -> t.Iterator[None]:
    """Make a message the current one, as dispatch does."""
    token = current.set(Handling(CONSUMER, message))
    try:
        yield
    finally:
        current.reset(token)


def test_outside_of_a_message_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="Working outside of a message"):
        current_message.id  # noqa: B018
    assert not current_message


def test_it_is_the_message_and_gives_the_last_one_back() -> None:
    with handling(Message(b"", "outer")):
        with handling(Message(b"", "inner")):
            assert current_message.queue == "inner"
        assert current_message.queue == "outer"
    assert not current_message


def test_it_is_gone_after_an_error() -> None:
    with pytest.raises(ValueError), handling(Message(b"", "q")):
        raise ValueError()
    assert not current_message


def test_other_greenlets_do_not_see_it() -> None:
    with handling(Message(b"", "q")):
        assert current_message
        assert not gevent.spawn(lambda: bool(current_message)).get()


def test_endings_run_once_the_last_first() -> None:
    ended: list[int] = []
    now = Handling(CONSUMER, Message(b"", "q"))
    for number in (1, 2):
        now.at_end(lambda number=number: ended.append(number))
    now.end()
    now.end()
    assert ended == [2, 1]


def test_an_ending_that_raises_keeps_no_other_from_running() -> None:
    ended: list[int] = []
    now = Handling(CONSUMER, Message(b"", "q"))
    now.at_end(lambda: ended.append(1))
    now.at_end(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        now.end()
    assert ended == [1]


def test_a_child_cannot_be_spawned_outside_of_a_message() -> None:
    with pytest.raises(WorkerError, match="and no message is being handled here"):
        spawn(print)


def test_a_child_of_a_teardown_function_ends_with_its_message(desk: Desk) -> None:
    """``current_message`` is there until the app context is gone."""
    children: list[gevent.Greenlet] = []

    def start(error: BaseException | None) -> None:
        if current_message:
            children.append(spawn(gevent.event.Event().wait))

    desk.handler(lambda body: None)
    desk.qconsume.teardown_message(start)
    desk.app.teardown_appcontext(start)
    assert desk.handle().error is None
    assert len(children) == 2
    assert all(child.dead for child in children)
