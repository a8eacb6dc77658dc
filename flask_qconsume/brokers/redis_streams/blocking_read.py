"""The blocking ``XREADGROUP``, which waits for the first new entry of some streams."""

from __future__ import annotations

import typing as t
from collections.abc import Sequence

from ..redis.connections import Command
from ..redis.errors import read_error_code
from ..redis.errors import translate_error

#: Errors that end a wait because a stream was deleted; the next script creates it.
_STREAM_DELETED_CODES = ("NOGROUP", "UNBLOCKED")

#: The number of a stream, an entry's id, and its names and values in turn.
Found = tuple[int, str, Sequence[bytes]]


def create_wait_command(
    group: str, consumer: str, streams: Sequence[str], seconds: float
) -> Command:
    """Return the ``XREADGROUP`` command that waits for the next entry."""
    return (
        *("XREADGROUP", "GROUP", group, consumer),
        *("COUNT", 1, "BLOCK", max(1, round(seconds * 1000))),
        *("STREAMS", *streams, *(">" for _ in streams)),
    )


def read_wait_answer(answer: t.Any, streams: Sequence[str]) -> list[Found]:
    """Decode the answer to the command of :func:`create_wait_command`.

    :raises BrokerError: for an error, unless a stream was deleted.
    """
    if not isinstance(answer, Exception):
        return _read_entries(answer, streams)
    if read_error_code(answer) in _STREAM_DELETED_CODES:
        return []
    raise translate_error(answer) from answer


def _read_entries(answer: t.Any, streams: Sequence[str]) -> list[Found]:
    # The answer is a mapping in version 3 of Redis' protocol, and pairs in version 2.
    pairs = answer.items() if isinstance(answer, dict) else answer or ()
    return [
        (streams.index(stream.decode()), id.decode(), fields)
        for stream, entries in pairs
        for id, fields in entries
    ]
