"""Runs of several faults, and the stages of the proofs for faults one by one."""

from __future__ import annotations

import pathlib
import typing as t
from collections.abc import Callable
from collections.abc import Sequence

import pytest

from ..proofs.conftest import make_stage as make_stage
from ..servers.fixtures import refuse
from .fault import Fault
from .places import PLACES
from .places import opened
from .record import RunRecord
from .run import Plan
from .run import Run

#: Fixtures of what needs a broker.
_NEEDING = {"make_run", "make_stage", "kafka_is_there", "redis_clocked"}

MakeRun = Callable[..., RunRecord]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these need a broker, which they only name in a parameter."""
    for item in items:
        if _NEEDING & set(getattr(item, "fixturenames", ())):
            item.add_marker("broker")


@pytest.fixture
def make_run(tmp_path: pathlib.Path) -> MakeRun:
    """Runs faults at a place, and returns the record."""

    def make(place: str, faults: Sequence[Fault], **plan: t.Any) -> RunRecord:
        server = PLACES[place][1]
        if reason := server.missing():
            refuse(f"{server.title} is not installed: {reason}")
        with opened(place, tmp_path / "broker") as found:
            return Run(found, Plan(faults=faults, **plan), tmp_path / "run").go()

    return make
