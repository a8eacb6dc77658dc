"""What is to become of a message, and the error that led to it.

An error refers to its traceback, that to the frames of the calls, and those to whatever
their variables hold: files, sessions, the message, and often the error itself. Such a
circle lives until Python looks for garbage, so whoever has settled the message calls
:meth:`Result.release`.
"""

from __future__ import annotations

import contextlib
import inspect
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from ..outcomes import Outcome

#: Frames of these may be suspended: clearing one would close its generator.
_GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


@dataclass
class Result:
    """What is to become of a message, and the error that led to it, if one did."""

    outcome: Outcome
    error: BaseException | None = None
    #: Whether the outcome was somebody's decision and not the retry policy's.
    foreseen: bool = False

    def release(self) -> None:
        """Let go of the error, and of what the variables of its calls hold.

        The error keeps its text and its lines, for a collector of errors that kept it.
        """
        error, self.error = self.error, None
        if error is not None:
            for each in _chain(error):
                _clear(each.__traceback__)


def strip_raise(outcome: Outcome) -> Outcome:
    """An outcome that was raised, without what it keeps of that."""
    outcome.__traceback__ = outcome.__cause__ = outcome.__context__ = None
    return outcome


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it was raised from, or while they were handled."""
    seen: set[int] = set()
    left: list[t.Any] = [error]
    while left:
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            left += (each.__cause__, each.__context__)
            left += getattr(each, "exceptions", ())


def _clear(traceback: TracebackType | None) -> None:
    while traceback is not None:
        frame = traceback.tb_frame
        if not frame.f_code.co_flags & _GENERATORS:
            # It says so if it is still running, in another greenlet.
            with contextlib.suppress(RuntimeError):
                frame.clear()
        traceback = traceback.tb_next
