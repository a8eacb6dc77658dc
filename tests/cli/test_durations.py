"""Parsing and formatting of durations."""

from __future__ import annotations

import math

import click
import pytest

from flask_qconsume.cli.durations import Duration
from flask_qconsume.cli.durations import format_duration
from flask_qconsume.cli.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("1.5", 1.5),
        ("90s", 90.0),
        ("15m", 900.0),
        ("2h", 7_200.0),
        ("7d", 604_800.0),
        ("1h30m", 5_400.0),
        (" 2H ", 7_200.0),
    ],
)
def test_a_duration_is_seconds_or_has_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "2 h", "-1", "2x", "1h-", "nan", "inf"])
def test_other_texts_are_not_durations(text: str) -> None:
    assert parse_duration(text) is None


def test_a_wrong_duration_says_how_to_write_one() -> None:
    with pytest.raises(click.BadParameter, match="'soon' is not a duration: .* 2h"):
        Duration().convert("soon", None, None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.25, "0.25 s"),
        (16, "16 s"),
        (60, "1 min"),
        (64, "64 s"),
        (256, "4.3 min"),
        (900, "15 min"),
        (3_600, "1 h"),
        (86_400, "1 day"),
        (7 * 86_400, "7 days"),
        (math.inf, "any time"),
    ],
)
def test_a_duration_is_formatted_in_a_fitting_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
