"""Fixtures for runs of faults, and for trials of single faults."""

from __future__ import annotations

import pathlib
import typing as t
from collections.abc import Callable
from collections.abc import Sequence

import pytest

from ..proofs.conftest import make_deployment as make_deployment
from ..servers.fixtures import refuse
from .fault import Fault
from .record import RunRecord
from .run import Plan
from .run import Run
from .setups import SETUPS
from .setups import open_setup

#: Fixtures that start a broker.
_NEEDING = {"make_run", "make_deployment", "kafka_is_there", "redis_clocked"}

MakeRun = Callable[..., RunRecord]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that name their broker in a parameter."""
    for item in items:
        if _NEEDING & set(getattr(item, "fixturenames", ())):
            item.add_marker("broker")


@pytest.fixture
def make_run(tmp_path: pathlib.Path) -> MakeRun:
    """Return a function that runs faults on a broker and returns the record."""

    def make(broker: str, faults: Sequence[Fault], **plan: t.Any) -> RunRecord:
        server = SETUPS[broker][1]
        if reason := server.missing():
            refuse(f"{server.title} is not installed: {reason}")
        with open_setup(broker, tmp_path / "broker") as found:
            return Run(found, Plan(faults=faults, **plan), tmp_path / "run").execute()

    return make
