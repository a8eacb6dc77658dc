"""Reads and writes durations such as ``90s`` and ``7 days``. Knows no messages."""

from __future__ import annotations

import math
import re
import typing as t

import click

_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS_OF_TEXT = (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0))


class Duration(click.ParamType):  # type: ignore[type-arg]
    """The type of a command's option that is a duration, such as ``90s`` or ``7d``."""

    name = "duration"

    def convert(
        self,
        value: t.Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        seconds = value if isinstance(value, float) else parse_duration(value)
        if seconds is None:
            self.fail(
                f"'{value}' is not a duration: give seconds, or a text such as 90s,"
                " 15m, 2h, 7d or 1h30m.",
                param,
                ctx,
            )
        return seconds


def parse_duration(text: str) -> float | None:
    """Return the seconds of a text such as ``1h30m``; ``None`` for any other text."""
    text = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(rf"({_PART.pattern})+", text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def format_duration(seconds: float) -> str:
    """Return a duration as a text for people: ``16 s``, ``15 min``, ``7 days``.

    The unit is the largest of which the duration has at least two, or a whole number:
    ``90 min``, but ``1 h``. Minutes, hours and days have at most one decimal.
    """
    if math.isinf(seconds):
        return "any time"
    for unit, size in _UNITS_OF_TEXT:
        whole = seconds >= size and seconds % size == 0
        if seconds >= 2 * size or whole:
            number = f"{seconds / size:.1f}".removesuffix(".0")
            return f"{number} {'day' if (number, unit) == ('1', 'days') else unit}"
    return f"{seconds:.3g} s"
