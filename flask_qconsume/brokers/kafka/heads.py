"""Single records, looked at where they lie. Joins no group, so that changes nothing."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Mapping

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition

from .client.admin import Place
from .client.calls import call_in_thread
from .client.calls import create_client
from .records import Fetched

#: Seconds that a look takes at the most; what did not come by then is not told.
_LONGEST = 3.0
_PAUSE = 0.1


class Heads:
    """Looks at the records of some offsets.

    :param settings: librdkafka's, for a consumer.
    """

    def __init__(self, settings: Mapping[str, t.Any]) -> None:
        self._settings = settings

    def at(self, offsets: Mapping[Place, int]) -> list[Fetched]:
        """The first record of each partition from an offset on, as far as they come."""
        return (
            call_in_thread(lambda: self._read(dict(offsets)), 2 * _LONGEST)
            if offsets
            else []
        )

    def _read(self, offsets: dict[Place, int]) -> list[Fetched]:
        """In a native thread."""
        consumer = create_client(Consumer, {**self._settings, "fetch.wait.max.ms": 10})
        deadline = time.monotonic() + _LONGEST
        found: dict[Place, Fetched] = {}
        try:
            consumer.assign([TopicPartition(*each) for each in _flat(offsets)])
            while len(found) < len(offsets) and time.monotonic() < deadline:
                record: Fetched = consumer.poll(_PAUSE)
                if record is not None and record.error() is None:
                    found.setdefault((record.topic(), record.partition()), record)
            return list(found.values())
        finally:
            consumer.close()


def _flat(offsets: Mapping[Place, int]) -> t.Iterator[tuple[str, int, int]]:
    return ((*place, offset) for place, offset in offsets.items())
