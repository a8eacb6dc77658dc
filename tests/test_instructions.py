"""The guard of the instruction counts; no instruction is counted here."""

from __future__ import annotations

import pytest

from benchmarks import instructions


def test_three_per_cent_more_is_an_increase() -> None:
    before = {"decoding": 1000.0, "dispatch": 1000.0, "gone": 1.0}
    now = {"decoding": 1029.0, "dispatch": 1030.0, "new": 5.0}
    assert instructions.find_increases(before, now) == ["dispatch"]


def test_an_increase_is_refused_with_advice_unless_a_reason_is_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="Costs-more: <reason>"):
        instructions.refuse_increases(["dispatch"], "")

    instructions.refuse_increases(["dispatch"], "checks bounds")
    assert "Accepted: checks bounds" in capsys.readouterr().out
