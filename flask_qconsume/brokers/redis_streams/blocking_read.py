"""Waiting in Redis for the first entry of several streams."""

from __future__ import annotations

import typing as t
from collections.abc import Sequence

from ..redis.errors import error_code
from ..redis.errors import translate_error
from ..redis.server import Command

#: What ends a wait for a stream that is there no more; the next look makes it again.
_MADE_AGAIN = ("NOGROUP", "UNBLOCKED")

Found = tuple[int, str, Sequence[bytes]]


def create_wait_command(
    group: str, consumer: str, streams: Sequence[str], seconds: float
) -> Command:
    """The command that waits; it ends with one entry of each stream, at the most."""
    return (
        *("XREADGROUP", "GROUP", group, consumer),
        *("COUNT", 1, "BLOCK", max(1, round(seconds * 1000))),
        *("STREAMS", *streams, *(">" for _ in streams)),
    )


def read_wait_answer(answer: t.Any, streams: Sequence[str]) -> list[Found]:
    """The number of the stream, the id and the fields of what ended the wait.

    :raises BrokerError: if Redis refused to wait.
    """
    if not isinstance(answer, Exception):
        return _found(answer, streams)
    if error_code(answer) in _MADE_AGAIN:
        return []
    raise translate_error(answer) from answer


def _found(answer: t.Any, streams: Sequence[str]) -> list[Found]:
    """What is in an answer of either version of the protocol."""
    pairs = answer.items() if isinstance(answer, dict) else answer or ()
    return [
        (streams.index(stream.decode()), id.decode(), fields)
        for stream, entries in pairs
        for id, fields in entries
    ]
