"""Tests that start processes are marked so: ``-m "not process"`` leaves them out."""

from __future__ import annotations

import resource
import typing as t

import pytest


class NotMarked(Exception):
    """A test started a process without the marker that says so."""


@pytest.fixture(autouse=True)
def processes_are_marked(request: pytest.FixtureRequest) -> t.Iterator[None]:
    """Fail a test that started and ended a process and is not marked as ``process``.

    The kernel adds the page faults of each ended child to those of its parent.
    """
    if {"process", "broker"} & {mark.name for mark in request.node.iter_markers()}:
        yield
        return
    before = _page_faults_of_children()
    yield
    if _page_faults_of_children() != before:
        raise NotMarked(f"{request.node.nodeid} starts a process: mark it as 'process'")


def _page_faults_of_children() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
