"""The pace at which messages are begun, in virtual time."""

from __future__ import annotations

import pytest

from flask_qconsume.running.pace import Pace

TARGET, LONGEST = 0.01, 0.05


def fed(pace: Pace, late: float, times: int) -> list[float]:
    """Each pause, while the hub is so late."""
    found = []
    for _ in range(times):
        pace.feed(late)
        found.append(pace.pause)
    return found


@pytest.fixture
def pace() -> Pace:
    return Pace(TARGET, LONGEST)


def test_it_does_not_pause_while_the_hub_is_in_time(pace: Pace) -> None:
    assert fed(pace, TARGET * 0.9, 100) == [0.0] * 100
    assert not pace.slowed


def test_one_late_turn_is_no_reason_to_pause(pace: Pace) -> None:
    assert fed(pace, TARGET * 4, 1) == [0.0]
    assert fed(pace, 0.0, 50) == [0.0] * 50


def test_the_later_the_longer_up_to_the_longest(pace: Pace) -> None:
    pauses = fed(pace, TARGET * 2, 60)
    assert pauses == sorted(pauses)
    steps = [b / a for a, b in zip(pauses, pauses[1:], strict=False) if a]
    assert max(steps) < 1.5, "no jumps"
    assert pauses[-1] == LONGEST
    assert pace.slowed


def test_it_comes_back_to_none_when_the_hub_is_in_time_again(pace: Pace) -> None:
    fed(pace, TARGET * 2, 60)
    pauses = fed(pace, 0.0, 60)
    assert pauses[:5] != [0.0] * 5, "not at once"
    assert pauses[-1] == 0.0
    assert not pace.slowed


def test_it_settles_where_what_it_begins_makes_the_hub_late(pace: Pace) -> None:
    """A hub that is late by what is begun: the more pauses, the less late."""
    seen = []
    for _ in range(2_000):
        late = 0.03 / (1 + pace.pause / 0.002)
        pace.feed(late)
        seen.append(late)
    assert pace.pause < LONGEST
    assert sum(seen[-500:]) / 500 == pytest.approx(TARGET, rel=0.2)
