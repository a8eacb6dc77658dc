"""The short profile: a few faults on each broker lose no message."""

from __future__ import annotations

import os
import random

import pytest

from ..proofs.conftest import on_each_broker
from . import catalogue
from .__main__ import PROFILES
from .__main__ import report
from .conftest import MakeRun

#: Environment variable with the seed of a run to repeat.
SEED = "QCONSUME_FAULTS_SEED"


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of the environment, or else a random one."""
    return int(os.environ.get(SEED) or random.randrange(10**6))


@pytest.mark.deadline(600)
@on_each_broker()
def test_nothing_is_lost_and_all_goes_on(
    make_run: MakeRun, broker: str, seed: int
) -> None:
    print(f"\n{broker}, {SEED}={seed}")
    record = make_run(
        broker,
        catalogue.draw_short(broker, seed),
        seed=seed,
        messages=PROFILES["short"].messages,
        command=f"python -m tests.faults {broker} --seed {seed}",
    )
    report(record)

    assert record.failures() == []
