"""No test runs for ever: past its deadline it fails, where it waits, and says so.

`gevent.Timeout` ends a test that waits; one that never lets the hub run is ended, with
the whole run, by pytest's ``faulthandler_timeout``, which needs no hub.
"""

from __future__ import annotations

import typing as t

import gevent
import pytest

DEFAULT = 120.0


class DeadlineExceeded(Exception):
    """A test, its set-up or its teardown took longer than it may."""


def _within_deadline(item: pytest.Item) -> t.Generator[None, object, object]:
    marker = item.get_closest_marker("deadline")
    seconds = float(marker.args[0]) if marker else DEFAULT
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
