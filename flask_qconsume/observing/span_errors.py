"""Errors on spans: class, text and traceback, with bounded lengths."""

from __future__ import annotations

import traceback

from opentelemetry.trace import Span
from opentelemetry.trace import StatusCode

from ..broker.headers import MAX_ERROR
from ..broker.headers import MAX_TRACEBACK
from ..errors import InvalidMessage
from ..text import shorten
from ..text import stringify
from .span_attributes import ERROR_TYPE


def set_error(span: Span, kind: str, text: str | None = None) -> None:
    """Mark a span as failed.

    :param kind: The error's class, or another word with few different values.
    """
    span.set_attribute(ERROR_TYPE, kind)
    span.set_status(StatusCode.ERROR, text)


def record_error(span: Span, error: BaseException) -> None:
    """Mark a span as failed, and add an event with the error's traceback.

    The text of an :exc:`.InvalidMessage` may quote the message's body, so only its
    class is told.
    """
    kind = name_class(error)
    if isinstance(error, InvalidMessage):
        set_error(span, kind)
        return
    text = _fit_text(stringify(error), MAX_ERROR)
    set_error(span, kind, text)
    # traceback copes with errors that raise in their own str().
    lines = "".join(traceback.format_exception(error))
    span.add_event(
        "exception",
        {
            "exception.type": kind,
            "exception.message": text,
            "exception.stacktrace": _fit_text(lines, MAX_TRACEBACK),
        },
    )


def name_class(error: BaseException) -> str:
    """Return the full name of an error's class; of a built-in one, the bare name."""
    cls = type(error)
    if cls.__module__ == "builtins":
        return cls.__qualname__
    return f"{cls.__module__}.{cls.__qualname__}"


def _fit_text(text: str, length: int) -> str:
    """Shorten a text, and replace what the exporters' UTF-8 cannot encode."""
    return shorten(text.encode("utf-8", "replace").decode(), length)
