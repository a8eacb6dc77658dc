"""Durations: a user gives seconds or a timedelta, this package works with seconds.

Standard library only.
"""

from __future__ import annotations

import typing as t
from datetime import timedelta

#: How a user may give a duration: seconds, or a :class:`~datetime.timedelta`.
Duration = float | timedelta

#: The longest duration in seconds. Longer ones overflow in a broker's milliseconds.
_LONGEST = timedelta.max.total_seconds()


def parse_seconds(value: t.Any, least: float = 0.0, most: float = _LONGEST) -> float:
    """Return the number of seconds of a duration, which may be a ``timedelta``.

    >>> parse_seconds(5), parse_seconds(timedelta(minutes=1))
    (5, 60.0)

    :param value: A :data:`Duration`, not checked yet.
    :raises TypeError: for anything but a number or a timedelta.
    :raises ValueError: if the duration is not from ``least`` to ``most`` seconds.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError("write a number of seconds, such as 300, or a timedelta")
    if not least <= seconds <= most:
        raise ValueError(f"it must be from {least:g} to {most:g} seconds")
    return seconds
