"""Waits of the tests: for a condition, up to a deadline, or for the end of a fault.

Imports neither the package nor a broker. In a patched interpreter other greenlets run
between two checks of a condition.
"""

from __future__ import annotations

import threading
import time
import typing as t

T = t.TypeVar("T")


def last(seconds: float) -> None:
    """Let a fault last that is defined by its duration, such as a server's absence.

    For helpers that provoke faults. A test waits for a condition instead.
    """
    time.sleep(seconds)


def wait_for(
    predicate: t.Callable[[], T],
    timeout: float = 10.0,
    *,
    message: str | t.Callable[[], object] = "",
    interval: float = 0.02,
) -> T:
    """Return the first true value of ``predicate()``.

    :param message: Description of the condition. A callable is called at the deadline,
        and can describe the progress until then.
    :raises AssertionError: The value is still false at the deadline.
    """
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() >= deadline:
            raise AssertionError(_explain(predicate, timeout, message, value))
        time.sleep(interval)
    return value


def spend(seconds: float) -> None:
    """Let time pass as a part of what a test does, and never to wait for something.

    A handler's work takes time, and a load has a pace.
    """
    time.sleep(seconds)


def hang() -> None:
    """Wait for what never comes, as a handler does that is to be interrupted."""
    threading.Event().wait()


def _explain(
    predicate: t.Callable[[], object],
    timeout: float,
    message: str | t.Callable[[], object],
    value: object,
) -> str:
    text = message() if callable(message) else message
    name = text or getattr(predicate, "__qualname__", repr(predicate))
    return f"not true after {timeout:g} s: {name} (last value: {value!r})"
