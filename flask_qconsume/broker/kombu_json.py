"""Values in JSON as kombu writes them, with dates, decimals and the like. No I/O.

kombu is imported once there is such a value: py-amqp and billiard come with it, a
megabyte and more that a worker on Kafka has no other use for.
"""

from __future__ import annotations

import json
import typing as t

from ..formats.bounds import check_json
from .headers import MAX_ITEMS

_PLAIN = (bool, int, float)


def encode(value: t.Any) -> str:
    """A value as JSON.

    :raises TypeError: for what kombu has no way to write.
    :raises RecursionError: for what is nested too deeply.
    """
    if type(value) in _PLAIN:
        return json.dumps(value)
    from kombu.utils.json import JSONEncoder

    return JSONEncoder().encode(value)


def decode(text: str) -> t.Any:
    """What was written as JSON, in kombu's way or anybody else's.

    :raises TooManyItems: for what would take too much memory.
    :raises Exception: of any kind: kombu calls methods of whatever it finds there.
    """
    if len(text) > MAX_ITEMS:
        check_json(text.encode("utf-8", "surrogatepass"), MAX_ITEMS)
    if '"__type__"' not in text:
        return json.loads(text)
    from kombu.utils.json import loads

    return loads(text)  # type: ignore[no-untyped-call]
