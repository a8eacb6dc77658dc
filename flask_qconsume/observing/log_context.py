"""The message that is being handled, on every log record of the process.

A log-record factory adds :data:`EMPTY`'s attributes to each record, whichever logger
logs it. It calls the factory that was set before. Threads and greenlets that handle no
message get the empty values, so that a format string may always name the attributes.
"""

from __future__ import annotations

import logging
import sys
import typing as t
from collections.abc import Callable

from ..handling.context import current
from ..settings import Settings
from ..text import escape

#: The prefix of the attributes. ``logging`` refuses an ``extra=`` with the name of an
#: existing attribute, so names that apps use themselves would break their log calls.
PREFIX = "qconsume_"

#: The attributes of a record, with their values outside of a message.
EMPTY: dict[str, str | int] = {
    "qconsume_consumer": "",
    "qconsume_message_id": "",
    "qconsume_attempt": 0,
    "qconsume_correlation_id": "",
    "qconsume_trace_id": "",
}

#: How many characters of an id are logged.
_MAX_ID_CHARACTERS = 200

_TRACE = "opentelemetry.trace"

#: The factories of this module that are active. There is one, unless the app has
#: replaced it by a factory of its own.
_factories: list[LogContext] = []


class LogContext:
    """Log-record factory that adds the context to the records of another factory."""

    def __init__(self, previous: Callable[..., logging.LogRecord]) -> None:
        self.previous = previous
        #: False once it was removed while another factory still calls it.
        self.active = True

    def __call__(self, *args: t.Any, **kwargs: t.Any) -> logging.LogRecord:
        record = self.previous(*args, **kwargs)
        if self.active:
            record.__dict__.update(read_context())
        return record


def read_context() -> dict[str, str | int]:
    """Return the attributes for a record that is logged here and now."""
    handling = current.get(None)
    trace_id = _read_trace_id() if _TRACE in sys.modules else ""
    if handling is None:
        return {**EMPTY, "qconsume_trace_id": trace_id} if trace_id else EMPTY
    message = handling.message
    return {
        "qconsume_consumer": handling.consumer.name,
        "qconsume_message_id": _shorten_id(message.id),
        "qconsume_attempt": message.attempt,
        "qconsume_correlation_id": _shorten_id(
            message.properties.get("correlation_id")
        ),
        "qconsume_trace_id": trace_id,
    }


def ensure_log_context(settings: Settings) -> None:
    """Add the context to records, unless ``QCONSUME_LOGGING`` is ``"off"``.

    Each app calls this, and each worker at its start, since the app may have replaced
    the factory meanwhile.
    """
    if settings.logging != "off":
        install_log_context()


def install_log_context() -> None:
    """Add the context to all records of this process from now on.

    Does nothing if records have it already.
    """
    factory = logging.getLogRecordFactory()
    if not _adds_context(factory):
        added = LogContext(factory)
        _factories.append(added)
        logging.setLogRecordFactory(added)


def remove_log_context() -> None:
    """Add the context to no more records.

    A factory that was set later stays, and may go on calling the one from here.
    """
    for each in _factories:
        each.active = False
    _factories.clear()
    factory = logging.getLogRecordFactory()
    if isinstance(factory, LogContext):
        logging.setLogRecordFactory(factory.previous)


def _adds_context(factory: Callable[..., logging.LogRecord]) -> bool:
    if isinstance(factory, LogContext) and factory.active:
        return True
    try:
        record = factory("flask_qconsume", logging.DEBUG, __file__, 0, "", (), None)
        return "qconsume_consumer" in vars(record)
    except Exception:  # A factory of the app may raise; our loggers survive that.
        return False


def _shorten_id(value: object) -> str:
    """Return an id's text, fit for a log line; ``""`` if there is no id."""
    is_id = isinstance(value, (str, int))
    return escape(value, _MAX_ID_CHARACTERS) if is_id else ""


def _read_trace_id() -> str:
    """Return OpenTelemetry's current trace id, as 32 hexadecimal digits, or ``""``."""
    try:
        span = sys.modules[_TRACE].get_current_span()
        trace_id = span.get_span_context().trace_id
        return format(trace_id, "032x") if trace_id else ""
    except Exception:  # For example, another thread is still importing the module.
        return ""
