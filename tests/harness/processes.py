"""Checks the marker of tests that start processes, which ``-m "not process"`` omits."""

from __future__ import annotations

import resource
import typing as t

import pytest

#: Fixtures whose tests start processes, and get the marker by them.
FIXTURES = frozenset({"commands", "on_redis", "on_rabbitmq", "supervised"})

#: Markers of tests that the tests in one process omit.
OMITTED = frozenset({"process", "broker", "long"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("process")


class NotMarked(Exception):
    """A test starts a process and has no ``process`` marker."""


@pytest.fixture(autouse=True)
def processes_are_marked(request: pytest.FixtureRequest) -> t.Iterator[None]:
    """Fail a test that starts a process and has no ``process`` marker.

    The kernel adds the page faults of each ended child to a counter of its parent.
    """
    if OMITTED & {mark.name for mark in request.node.iter_markers()}:
        yield
        return
    before = _page_faults_of_children()
    yield
    if _page_faults_of_children() != before:
        raise NotMarked(f"{request.node.nodeid} starts a process: mark it as 'process'")


def _page_faults_of_children() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
