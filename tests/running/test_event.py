"""A wait for an event always ends: when it is set, or by its time-out."""

from __future__ import annotations

import gevent
import pytest

from flask_qconsume.running.event import Event


def test_a_wait_tells_whether_the_event_was_set_in_time() -> None:
    event = Event()
    assert event.wait(0.0) is False
    gevent.spawn(event.set)
    assert event.wait() is True
    assert event.wait(0.0) is True
    event.clear()
    assert event.wait(0.0) is False


@pytest.mark.deadline(10)
def test_a_late_waiter_wakes_though_an_earlier_one_times_out() -> None:
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
