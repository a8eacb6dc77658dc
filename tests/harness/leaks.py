"""Fails tests that leave a greenlet, a thread or a socket behind.

What a fixture of a wider scope opens does not count as the test's.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import typing as t
import weakref

import gevent
import pytest

from ..waiting import wait_for

#: How often to look, at least, before something counts as left behind.
_LEAST_LOOKS = 5

_started: weakref.WeakSet[gevent.Greenlet] = weakref.WeakSet()


class Leak(Exception):
    """Something that a test started outlived it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    meaning = "seconds that greenlets, threads and sockets have to end after their test"
    parser.addini("leak_grace", meaning, default="2")


def pytest_collection_finish() -> None:
    """Exempt what is imported from later collections, which then take a fifth.

    They run at each start of a worker, and after tests that seem to leave something.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_survives(request: pytest.FixtureRequest) -> t.Iterator[None]:
    """Fail a test that leaves a greenlet, a thread or a socket behind.

    ``@pytest.mark.may_leak("reason")`` exempts a test.
    """
    if request.node.get_closest_marker("may_leak"):
        yield
        return
    gevent.Greenlet.add_spawn_callback(_started.add)
    before = _alive()
    yield
    grace = request.node.get_closest_marker("leak_grace")
    seconds = grace.args[0] if grace else float(request.config.getini("leak_grace"))
    left = _left(before, seconds)
    gevent.Greenlet.remove_spawn_callback(_started.add)
    if left:
        raise Leak(f"left behind by the test: {', '.join(sorted(left))}")


def _left(before: frozenset[tuple[str, int]], grace: float) -> list[str]:
    looks = 0

    def is_clean() -> bool:
        nonlocal looks
        looks += 1
        if not _alive() - before:
            return True
        gc.collect()
        return not _alive() - before

    # On a busy machine a single collection may take longer than the grace.
    while looks < _LEAST_LOOKS:
        with contextlib.suppress(AssertionError):
            wait_for(is_clean, grace, interval=0.01)
            return []
    return _describe(_alive() - before)


def _alive() -> frozenset[tuple[str, int]]:
    greenlets = {("greenlet", id(each)) for each in _started if not each.dead}
    threads = {("thread", id(each)) for each in threading.enumerate()}
    return frozenset(greenlets | threads | _sockets())


def _sockets() -> set[tuple[str, int]]:
    """Return inode numbers, which the kernel reuses later than descriptors."""
    found = set()
    for entry in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{entry}")
            if target.startswith("socket:["):
                found.add(("socket", int(target[8:-1])))
    return found


def _describe(left: t.AbstractSet[tuple[str, int]]) -> list[str]:
    objects: dict[int, object] = {id(each): each for each in _started}
    objects |= {id(each): each for each in threading.enumerate()}
    return [f"{kind} {objects.get(key, key)!r}" for kind, key in left]
