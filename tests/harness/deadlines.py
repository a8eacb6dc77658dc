"""Deadline of every test: a test that takes longer fails where it waits.

`gevent.Timeout` ends a test that waits. A test that never lets gevent's hub run is
ended by pytest's ``faulthandler_timeout``, which ends the whole run.
"""

from __future__ import annotations

import typing as t

import gevent
import pytest

#: Seconds that a test may take, unless its ``deadline`` marker says otherwise.
DEFAULT_DEADLINE = 120.0


class DeadlineExceeded(Exception):
    """A test, its set-up or its teardown took longer than allowed."""


def _within_deadline(item: pytest.Item) -> t.Generator[None, object, object]:
    marker = item.get_closest_marker("deadline")
    seconds = float(marker.args[0]) if marker else DEFAULT_DEADLINE
    error = DeadlineExceeded(f"took longer than {seconds:g} s: {item.nodeid}")
    with gevent.Timeout(seconds, error):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> t.Generator[None, object, object]:
    return (yield from _within_deadline(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> t.Generator[None, object, object]:
    return (yield from _within_deadline(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> t.Generator[None, object, object]:
    return (yield from _within_deadline(item))
