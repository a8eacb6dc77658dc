"""Whoever waits for an event gets an answer."""

from __future__ import annotations

import gevent
import pytest

from flask_qconsume.running.event import Event


def test_an_event_tells_whether_it_came_true_in_time() -> None:
    event = Event()
    assert event.wait(0.0) is False
    gevent.spawn(event.set)
    assert event.wait() is True
    assert event.wait(0.0) is True
    event.clear()
    assert event.wait(0.0) is False


@pytest.mark.deadline(10)
def test_who_waits_while_another_one_gives_up_is_not_forgotten() -> None:
    """A plain one of gevent's keeps the test here until its deadline, time-out or not.

    Kill, set and wait come in one turn of the loop, and in this order the loop does
    what they ask for; a waiter whose time is over does the same as one that is killed.
    """
    event = Event()
    waiter = gevent.spawn(event.wait)
    gevent.idle()
    waiter.kill(block=False)
    event.set()
    assert event.wait(0.1) is True
    waiter.join()
