"""Our loggers: neither an error's text nor an app's log handler can do harm by them.

The standard library writes an error's text into a traceback as it is, and that text may
have come with a message: it could forge a line or speak to a terminal. What a handler,
a filter or a record factory of the app raises would come out of the call that logs, and
end what consumes or stops. Standard library only.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import time
import traceback
import typing as t
from collections.abc import Callable
from collections.abc import Iterator

from .text import escape

#: How much of one error's own text is logged.
_LONGEST = 10_000


#: When the calls of handlers began that have not returned.
_calls: dict[int, float] = {}
_numbers = itertools.count()

#: Reports what logging raises as the standard library's handlers do.
_reporter = logging.Handler()


def get_logger(name: str) -> logging.Logger:
    """The logger of that name: it never raises, and escapes the texts of errors."""
    logger = logging.getLogger(name)
    logger.addFilter(_escape)
    # On the object: the app may have made it before, of another class.
    own = vars(logger)
    if "handle" not in own:
        own["handle"] = functools.partial(_handle, logger.handle)
        own["makeRecord"] = functools.partial(_make_record, logger.makeRecord)
    return logger


def measure_handler_hang() -> float:
    """Seconds since the oldest call of log handlers began that has not returned."""
    begun = list(_calls.values())
    return time.monotonic() - min(begun) if begun else 0.0


def _handle(handle: Callable[[logging.LogRecord], t.Any], record: t.Any) -> None:
    number = next(_numbers)
    _calls[number] = time.monotonic()
    try:
        handle(record)
    except Exception:
        _report(record)
    finally:
        del _calls[number]


def _make_record(
    make: Callable[..., logging.LogRecord], *args: t.Any
) -> logging.LogRecord:
    try:
        return make(*args)
    except Exception:
        name, level, path, line, text, values, error, function, _, stack = args
        record = logging.LogRecord(
            name, level, path, line, text, values, error, function, stack
        )
        _report(record)
        return record


def _report(record: logging.LogRecord) -> None:
    with contextlib.suppress(Exception):  # The standard error stream may be closed.
        _reporter.handleError(record)


def format_traceback(error: BaseException) -> str:
    """Its traceback, with what each error in it says in one line, escaped."""
    return "\n".join(_lines(traceback.TracebackException.from_exception(error)))


def _escape(record: logging.LogRecord) -> bool:
    """A filter that lets all pass: formatters take the text that they find here.

    Whoever looks at ``exc_info``, as collectors of errors do, finds the error itself.
    """
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and not record.exc_text:
        try:
            record.exc_text = format_traceback(error)
        except BaseException:
            record.exc_text = f"{type(error).__name__}, whose traceback cannot be had"
    return True


def _lines(shown: traceback.TracebackException) -> Iterator[str]:
    if shown.__cause__ is not None:
        yield from _lines(shown.__cause__)
        yield "\nThe above exception was the direct cause of the following exception:\n"
    elif shown.__context__ is not None and not shown.__suppress_context__:
        yield from _lines(shown.__context__)
        yield "\nDuring handling of the above exception, another exception occurred:\n"
    if shown.stack:
        yield "Traceback (most recent call last):"
        yield "".join(shown.stack.format()).rstrip("\n")
    yield escape("".join(shown.format_exception_only()).rstrip("\n"), _LONGEST)
    # An exception group's; Python 3.10 has none.
    within: list[traceback.TracebackException] = (
        getattr(shown, "exceptions", None) or []
    )
    for each in within:
        yield from (f"  | {line}" for text in _lines(each) for line in text.split("\n"))
