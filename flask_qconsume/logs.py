"""Our loggers: what an error says can neither forge a line nor speak to a terminal.

The standard library writes an error's text into a traceback as it is, and that text may
have come with a message. Standard library only.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator

from .text import printable

#: How much of one error's own text is logged.
_LONGEST = 10_000


def logger_named(name: str) -> logging.Logger:
    """The logger of that name; it logs tracebacks with their errors' texts escaped."""
    logger = logging.getLogger(name)
    logger.addFilter(_escape)
    return logger


def traceback_of(error: BaseException) -> str:
    """Its traceback, with what each error in it says in one line, escaped."""
    return "\n".join(_lines(traceback.TracebackException.from_exception(error)))


def _escape(record: logging.LogRecord) -> bool:
    """A filter that lets all pass: formatters take the text that they find here.

    Whoever looks at ``exc_info``, as collectors of errors do, finds the error itself.
    """
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and not record.exc_text:
        try:
            record.exc_text = traceback_of(error)
        except Exception:
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
    yield printable("".join(shown.format_exception_only()).rstrip("\n"), _LONGEST)
    # An exception group's; Python 3.10 has none.
    within: list[traceback.TracebackException] = (
        getattr(shown, "exceptions", None) or []
    )
    for each in within:
        yield from (f"  | {line}" for text in _lines(each) for line in text.split("\n"))
