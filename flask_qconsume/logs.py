"""Loggers that hostile texts in errors and failing log handlers cannot harm.

The standard library writes an error's text into a traceback as it is. That text may
come from a message, and could forge a log line or control a terminal. If a log handler,
filter or record factory of the app raised, the exception would leave the call that
logs, and end the consumer. Standard library only.
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

#: How many characters of an error's own text are logged.
_MAX_ERROR_CHARACTERS = 10_000


#: The start times of calls of log handlers that have not returned.
_calls: dict[int, float] = {}
_numbers = itertools.count()

#: Reports exceptions in log handlers, as the standard library's handlers do.
_reporter = logging.Handler()


def get_logger(name: str) -> logging.Logger:
    """Return a logger that never raises an error, and escapes the texts of errors."""
    logger = logging.getLogger(name)
    logger.addFilter(_escape_traceback)
    # Set on the object: the app may have created the logger already.
    attributes = vars(logger)
    if "handle" not in attributes:
        attributes["handle"] = functools.partial(_handle, logger.handle)
        attributes["makeRecord"] = functools.partial(_make_record, logger.makeRecord)
    return logger


def measure_handler_hang() -> float:
    """Return for how many seconds a log call has not returned; 0 without any."""
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
    """Return an error's traceback as text, in which errors' own texts are escaped."""
    return "\n".join(_lines(traceback.TracebackException.from_exception(error)))


def describe_error(error: BaseException | None) -> str:
    """Return an error's traceback as :func:`format_traceback`; raise nothing."""
    if error is None:
        return "None"
    try:
        return format_traceback(error)
    except BaseException:
        return f"{type(error).__name__}, without a readable traceback"


def _escape_traceback(record: logging.LogRecord) -> bool:
    """A logging filter that changes no decision: it escapes tracebacks.

    Formatters take the text in ``exc_text``. The error itself stays in ``exc_info`` for
    error collectors.
    """
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and not record.exc_text:
        record.exc_text = describe_error(error)
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
    yield escape(
        "".join(shown.format_exception_only()).rstrip("\n"), _MAX_ERROR_CHARACTERS
    )
    # The errors of an exception group, which Python 3.10 does not have.
    within: list[traceback.TracebackException] = (
        getattr(shown, "exceptions", None) or []
    )
    for grouped_error in within:
        yield from (
            f"  | {line}" for text in _lines(grouped_error) for line in text.split("\n")
        )
