"""Wait for something to become true, up to a deadline: the only wait a test uses.

Knows nothing of brokers and of the package. In a patched interpreter the short waits
in between let the other greenlets run.
"""

from __future__ import annotations

import time
import typing as t

T = t.TypeVar("T")


def wait_for(
    predicate: t.Callable[[], T],
    timeout: float = 10.0,
    *,
    message: str | t.Callable[[], object] = "",
    interval: float = 0.02,
) -> T:
    """Return the first true value of ``predicate()``; `AssertionError` at the deadline.

    ``message`` says what was waited for; a callable is called at the deadline, so that
    it can say how far things had come.
    """
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() >= deadline:
            raise AssertionError(_explain(predicate, timeout, message, value))
        time.sleep(interval)
    return value


def _explain(
    predicate: t.Callable[[], object],
    timeout: float,
    message: str | t.Callable[[], object],
    value: object,
) -> str:
    text = message() if callable(message) else message
    name = text or getattr(predicate, "__qualname__", repr(predicate))
    return f"not true after {timeout:g} s: {name} (last value: {value!r})"
