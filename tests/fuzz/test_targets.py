"""Every target takes every seed, and whatever hypothesis makes up."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import HealthCheck
from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from . import __main__ as fuzz
from .targets import TARGETS

SEEDS = pathlib.Path(__file__).parent / "seeds"
FOUND = {
    f"{path.parent.name}-{path.name}": path
    for path in sorted(SEEDS.rglob("*"))
    if path.is_file()
}

#: Bytes, and small numbers only, which are choices more often.
BYTES = st.binary(max_size=400) | st.lists(st.integers(0, 9), max_size=200).map(bytes)


@pytest.mark.parametrize("seed", FOUND.values(), ids=FOUND)
def test_seeds_and_what_was_ever_found_break_nothing(seed: pathlib.Path) -> None:
    TARGETS[seed.parent.name](seed.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_break_a_target(name: str) -> None:
    @settings(
        derandomize=True,
        max_examples=150,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(BYTES)
    @example(b"")
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()


def test_the_fuzzer_knows_all_targets() -> None:
    assert set(fuzz.NAMES) == set(TARGETS)
    assert {path.name for path in SEEDS.iterdir()} <= set(TARGETS)
