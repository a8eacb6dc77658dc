"""The garbage collector runs less often, unless the app has set it."""

from __future__ import annotations

import gc
import typing as t

import pytest

from flask_qconsume.running.gc_tuning import collect_less_often


@pytest.fixture(autouse=True)
def restored() -> t.Iterator[None]:
    """Restore the collector of the tests' own process, which tests/harness froze."""
    before = gc.get_threshold()
    gc.unfreeze()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)
    gc.collect()
    gc.freeze()


def test_it_runs_less_often_and_exempts_existing_objects() -> None:
    gc.set_threshold(700, 11, 12)
    collect_less_often()
    assert gc.get_threshold()[0] == 10_000
    assert gc.get_freeze_count() > 0


@pytest.mark.parametrize("first", [0, 50_000])
def test_a_setting_of_the_app_is_left_alone(first: int) -> None:
    gc.set_threshold(first, 11, 12)
    collect_less_often()
    assert gc.get_threshold()[0] == first
    assert gc.get_freeze_count() == 0
