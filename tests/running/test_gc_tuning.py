"""How often garbage is looked for."""

from __future__ import annotations

import gc
import typing as t

import pytest

from flask_qconsume.running.gc_tuning import collect_less_often


@pytest.fixture(autouse=True)
def restored() -> t.Iterator[None]:
    """The tests' own process is as it was afterwards."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_it_is_looked_for_less_often_and_not_among_what_was_there() -> None:
    gc.set_threshold(700, 11, 12)
    collect_less_often()
    assert gc.get_threshold()[0] == 10_000
    assert gc.get_freeze_count() > 0


@pytest.mark.parametrize("first", [0, 50_000])
def test_who_has_set_it_is_left_alone(first: int) -> None:
    gc.set_threshold(first, 11, 12)
    collect_less_often()
    assert gc.get_threshold()[0] == first
    assert gc.get_freeze_count() == 0
