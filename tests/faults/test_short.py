"""The short profile: a few faults on each broker, and nothing is lost."""

from __future__ import annotations

import os
import random

import pytest

from . import catalogue
from .__main__ import PROFILES
from .__main__ import report
from .conftest import MakeRun

#: Repeats a run.
SEED = "QCONSUME_FAULTS_SEED"


@pytest.fixture(scope="session")
def seed() -> int:
    """Another one each time, unless the environment says which."""
    return int(os.environ.get(SEED) or random.randrange(10**6))


@pytest.mark.deadline(600)
@pytest.mark.parametrize("place", ["quorum", "classic", "redis", "streams", "kafka"])
def test_nothing_is_lost_and_all_goes_on(
    make_run: MakeRun, place: str, seed: int
) -> None:
    print(f"\n{place}, {SEED}={seed}")
    record = make_run(
        place,
        catalogue.short(place, seed),
        seed=seed,
        messages=PROFILES["short"].messages,
        command=f"python -m tests.faults {place} --seed {seed}",
    )
    report(record)

    assert record.failures() == []
