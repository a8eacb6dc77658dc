"""Columns by which dead letters are searched and grouped. No I/O."""

from __future__ import annotations

import pathlib
import re
import typing as t
from collections.abc import Mapping

from ...broker import headers as own_headers
from ...message import Message
from .rows import clean

#: Characters of a column that has an index: PostgreSQL allows 2,700 bytes per entry.
_MAX_INDEXED_CHARACTERS = 200

_PACKAGE = str(pathlib.Path(__file__).parents[2])
_FRAME = re.compile(r'^  File "(.+?)", line (\d+), in (.+)$', re.MULTILINE)
#: Folders whose code is not the app's.
_LIBRARY = re.compile(r"[/\\](site-packages|dist-packages|lib[/\\]python3)|^<")


def make_columns(
    message: Message, headers: Mapping[str, t.Any], meta: str
) -> dict[str, t.Any]:
    """Return the columns of a dead letter, as parameters of ``ADD_DEAD_LETTER``."""
    return {
        "died_at_": own_headers.read_time(headers, own_headers.DIED_AT),
        "message_id_": shorten_id(message.id),
        "consumer_": clean(own_headers.read_text(headers, own_headers.CONSUMER)),
        "error_": _find_class(headers),
        "place_": _find_place(headers),
        "search_": fold("\n".join(_list_reasons(headers))),
        "size_": len(meta) + len(message.raw),
    }


def shorten_id(id: str | None) -> str | None:
    """Return a message's id as the column ``message_id`` has it."""
    cleaned = clean(id)
    return cleaned and cleaned[:_MAX_INDEXED_CHARACTERS]


def fold(text: str) -> str:
    """Return a text as the column ``search`` has it.

    If a text contains a part, the folded text contains the folded part.
    """
    return clean(text.casefold()) or ""


def _list_reasons(headers: Mapping[str, t.Any]) -> list[str]:
    names = own_headers.ERROR, own_headers.REASON
    return [own_headers.read_text(headers, name) or "" for name in names]


def _find_class(headers: Mapping[str, t.Any]) -> str | None:
    """Return the error's class with its module; ``None`` without an error."""
    error = clean(own_headers.read_text(headers, own_headers.ERROR))
    return error and error.partition(": ")[0][:_MAX_INDEXED_CHARACTERS]


def _find_place(headers: Mapping[str, t.Any]) -> str | None:
    """Return file, line and function where the app's code failed last, if known."""
    traceback = own_headers.read_text(headers, own_headers.TRACEBACK)
    frames: list[tuple[str, str, str]] = _FRAME.findall(traceback or "")
    if not frames:
        return None
    own = [frame for frame in frames if _is_of_app(frame[0])]
    file, line, function = (own or frames)[-1]
    # The end of a path tells more than its beginning.
    return (clean(f"{file}:{line} in {function}") or "")[-_MAX_INDEXED_CHARACTERS:]


def _is_of_app(file: str) -> bool:
    return not file.startswith(_PACKAGE) and _LIBRARY.search(file) is None
