"""The result of handling a message: an outcome, and the error that led to it.

An error refers to its traceback, the traceback to the frames of the calls, and the
frames to their variables: files, sessions, the message, and often the error itself.
Such a reference cycle lives until Python's next garbage collection. So the worker calls
:meth:`Result.release` as soon as it has used the result.
"""

from __future__ import annotations

import contextlib
import inspect
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from ..outcomes import Ack
from ..outcomes import Outcome

#: Kinds of frames that may be suspended: clearing one would close its generator.
_GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


@dataclass
class Result:
    """The result of handling a message: its outcome, and the error that led to it."""

    outcome: Outcome
    error: BaseException | None = None
    #: True if the app's code decided the outcome, and not the retry policy.
    foreseen: bool = False

    @property
    def failed(self) -> bool:
        """True if an error was raised, and the message is not acknowledged."""
        return self.error is not None and not isinstance(self.outcome, Ack)

    def release(self) -> None:
        """Forget the error, and the local variables in its traceback.

        An error collector that kept the error still has its text and its lines.
        """
        error, self.error = self.error, None
        if error is not None:
            for cause in _walk_causes(error):
                _clear_frames(cause.__traceback__)


def strip_raise(outcome: Outcome) -> Outcome:
    """Remove the traceback and the causes of an outcome that was raised."""
    outcome.__traceback__ = outcome.__cause__ = outcome.__context__ = None
    return outcome


def _walk_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all errors that it refers to: causes, contexts, groups."""
    seen: set[int] = set()
    unvisited: list[t.Any] = [error]
    while unvisited:
        cause = unvisited.pop()
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            unvisited += (cause.__cause__, cause.__context__)
            unvisited += getattr(cause, "exceptions", ())


def _clear_frames(traceback: TracebackType | None) -> None:
    while traceback is not None:
        frame = traceback.tb_frame
        if not frame.f_code.co_flags & _GENERATORS:
            # A frame that still runs, in another greenlet, raises RuntimeError.
            with contextlib.suppress(RuntimeError):
                frame.clear()
        traceback = traceback.tb_next
