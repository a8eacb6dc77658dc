"""What a call costs: counted, since time says more about the machine."""

from __future__ import annotations

import sys
import time
import typing as t
from collections.abc import Callable

T = t.TypeVar("T")

#: Seconds of the processor that no target may take, whatever its bytes are. Where the
#: steps are those of C code, nothing counts them.
MOST = 2.0


def counted(call: Callable[[], T]) -> tuple[T, int]:
    """The result of a call, and how many lines of Python it ran."""
    steps = 0

    def trace(frame: t.Any, event: str, argument: t.Any) -> t.Any:
        nonlocal steps
        steps += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        found = call()
    finally:
        sys.settrace(before)
    return found, steps


def bounded(call: Callable[[], T], most: float = MOST) -> T:
    """The result of a call that takes no more than so many seconds of the processor."""
    began = time.thread_time()
    found = call()
    took = time.thread_time() - began
    assert took <= most, f"it took {took:.1f} s of the processor"
    return found
