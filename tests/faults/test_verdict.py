"""Losses are attributed to their fault, and a failed run is told from a good one."""

from __future__ import annotations

import pathlib

import pytest

from .check import Tally
from .record import FaultRecord
from .record import RunRecord
from .test_check import lines
from .test_check import tally
from .verdict import attribute_losses
from .verdict import judge_faults


def fault(index: int, began: float, **more: object) -> FaultRecord:
    """Make a fault of two seconds, after which consuming resumes in one second."""
    found = FaultRecord(index, f"fault {index}", False, began, 2.0, 1.0, 45.0)
    for name, value in more.items():
        setattr(found, name, value)
    return found


def run(*faults: FaultRecord, **more: object) -> RunRecord:
    found = RunRecord("redis", "Redis", 1, "again", {}, faults=list(faults))
    for name, value in more.items():
        setattr(found, name, value)
    return found


@pytest.fixture
def events() -> Tally:
    """One message per second from second 100; the fourth is handled twice."""
    confirmed = lines(*(("confirmed", n) for n in range(10)), began=100)
    handled = lines(*(("done", n) for n in range(10)), ("done", 3), began=100)
    return tally(confirmed, handled)


def test_what_happens_until_the_next_fault_is_attributed_to_the_first(
    events: Tally,
) -> None:
    faults = [fault(0, began=1), fault(1, began=6, returns=3)]
    judge_faults(faults, events, began=100, bound=7)

    assert [each.messages for each in faults] == [5, 4]
    assert [each.duplicated for each in faults] == [0, 1]
    assert [each.silence for each in faults] == [1, 1]
    assert [each.bound for each in faults] == [7, 21]


def test_a_loss_is_attributed_to_the_fault_that_was_over_next(events: Tally) -> None:
    faults = [fault(0, began=1), fault(1, began=5)]
    # Confirmed before and during the first, between the two, and after the last.
    attribute_losses(faults, events, 100, lost={0, 2, 4, 9}, excused={})

    assert [each.lost for each in faults] == [2, 2]


def test_a_loss_that_is_allowed_is_attributed_to_its_fault(events: Tally) -> None:
    faults = [fault(0, began=1), fault(1, began=5, may_lose=True)]
    attribute_losses(faults, events, 100, lost={0, 2}, excused={0: 1, 2: 1})

    assert [each.lost for each in faults] == [0, 2]


def test_a_good_run_has_no_failures() -> None:
    assert run(fault(0, 1, duplicated=3, bound=3)).failures() == []
    told = fault(0, 1, lost=5, duplicated=4, bound=3, may_lose=True)
    assert run(told, lost=5).failures() == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (fault(0, 1, lost=1), "1 lost"),
        (fault(0, 1, resumed=None), "did not resume"),
        (fault(0, 1, resumed=46.0), "consuming resumed after 46.0 s, 45 s are allowed"),
        (fault(0, 1, duplicated=4, bound=3), "4 handled again, 3 may be"),
        (fault(0, 1, problem="not noticed"), "not noticed"),
    ],
)
def test_a_bad_fault_is_named(found: FaultRecord, said: str) -> None:
    (failure,) = run(found).failures()

    assert failure.startswith("fault 0 (fault 0): ")
    assert said in failure


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"reordered": 2}, "2 out of order"),
        ({"dead": 3}, "3 unexpected dead letters"),
        ({"stuck": 4}, "4 stuck in the queue"),
        ({"lost": 5}, "5 lost without any fault"),
        ({"problems": ["a worker ended"]}, "a worker ended"),
    ],
)
def test_a_bad_run_says_why(figures: dict[str, object], said: str) -> None:
    assert run(**figures).failures() == [said]


def test_a_record_is_written_and_read(tmp_path: pathlib.Path) -> None:
    found = run(fault(0, 1, noticed=4.2), reordered=0)

    assert RunRecord.read(found.write(tmp_path)) == found
