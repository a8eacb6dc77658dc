"""Log records as JSON, one object a line, with the message that is being handled.

Needs ``python-json-logger``, which the extra ``logs`` installs.
"""

from __future__ import annotations

import json
import logging
import typing as t
from datetime import datetime
from datetime import timezone

from pythonjsonlogger import core
from pythonjsonlogger import json as pythonjsonlogger

from ..logs import describe_error
from ..text import escape
from ..text import shorten
from .log_context import EMPTY
from .log_context import PREFIX

#: How many characters of one field are logged. Loki refuses lines of more than 256 KiB.
_MAX_FIELD_CHARACTERS = 20_000

#: The largest whole number that is written as a number; many readers have 64 bits.
_MAX_INT = 2**63

#: Names of ``python-json-logger`` for fields of which it makes a text.
_RENAMED = {"exc_info": "exception", "stack_info": "stack"}


class JsonFormatter(pythonjsonlogger.JsonFormatter):
    """Formats a record as one line of JSON.

    The fields are ``time`` (in UTC), ``level``, ``logger``, ``message``, ``process``;
    while a message is handled ``consumer``, ``message_id``, ``attempt``, and
    ``correlation_id`` and ``trace_id`` if there are any; ``exception`` and ``stack`` if
    given; and whatever the app adds by ``extra=``. A field of the app that has the name
    of another field is called ``extra_NAME``.

    Values that JSON does not know become texts, and long ones lose their middle. The
    arguments are those of ``python-json-logger``, such as ``rename_fields`` and
    ``static_fields``.
    """

    def __init__(
        self,
        *args: t.Any,
        rename_fields: dict[str, str] | None = None,
        **kwargs: t.Any,
    ) -> None:
        kwargs.setdefault("reserved_attrs", [*core.RESERVED_ATTRS, *EMPTY])
        super().__init__(
            *args, rename_fields={**_RENAMED, **(rename_fields or {})}, **kwargs
        )

    def formatException(self, ei: t.Any) -> t.Any:
        """Return the traceback, each error's own text escaped and shortened."""
        lines = describe_error(ei[1])
        return lines.splitlines() if self.exc_info_as_array else lines

    def add_fields(
        self,
        log_data: dict[str, t.Any],
        record: logging.LogRecord,
        message_dict: dict[str, t.Any],
    ) -> None:
        """Fill ``log_data`` with the fields of a record."""
        given: dict[str, t.Any] = {}
        super().add_fields(given, record, message_dict)
        # 'python-json-logger' has it too: as a field of its own, or of a logged dict.
        text = given.pop(self._rename("message"), record.message)
        for name, value in _list_fields(record, text).items():
            log_data[self._rename(name)] = value
        taken = set(log_data)
        for name, value in given.items():
            log_data[f"extra_{name}" if name in taken else str(name)] = value

    def process_log_record(self, log_data: dict[str, t.Any]) -> dict[str, t.Any]:
        """Return the fields with values that can be written as JSON."""
        return {
            _clean(name): self._make_serializable(value)
            for name, value in log_data.items()
        }

    def _rename(self, name: str) -> str:
        return self.rename_fields.get(name, name)

    def _make_serializable(self, value: t.Any) -> t.Any:
        if isinstance(value, str):
            return _clean(value)
        if value is None or isinstance(value, bool):
            return value
        if type(value) is int and -_MAX_INT <= value < _MAX_INT:
            return value
        try:
            text = self._dump(value)
        except BaseException:  # A circle, not a number, a '__str__' that raises, …
            return escape(value, _MAX_FIELD_CHARACTERS)
        return json.loads(text) if len(text) <= _MAX_FIELD_CHARACTERS else _clean(text)

    def _dump(self, value: t.Any) -> str:
        text = json.dumps(
            value,
            default=self.json_default,
            cls=t.cast(t.Any, self.json_encoder),
            allow_nan=False,
            ensure_ascii=False,
        )
        text.encode()  # Raises for a lone surrogate, which JSON's readers replace.
        return text


def _list_fields(record: logging.LogRecord, text: t.Any) -> dict[str, t.Any]:
    time = datetime.fromtimestamp(record.created, timezone.utc)
    context = {name.removeprefix(PREFIX): getattr(record, name, "") for name in EMPTY}
    return {
        "time": time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": record.levelname,
        "logger": record.name,
        "message": text,
        "process": record.process,
        **{name: value for name, value in context.items() if value},
    }


def _clean(text: str) -> str:
    """Return a text without its middle if it is long, and without lone surrogates."""
    kept = shorten(text, _MAX_FIELD_CHARACTERS)
    return kept.encode("utf-8", "backslashreplace").decode()
