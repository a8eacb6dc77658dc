"""Topics that came after a client had subscribed: it is made to look for them.

A client that reads all topics again and again, to find new ones by itself, makes the
broker and its own threads work for it: with a hundred of them in a process it was a
third of what they took at rest. So it does that every five minutes, as is librdkafka's
own way, and whoever knows of a topic asks for it here. Knows no client.
"""

from __future__ import annotations

import time
import typing as t
from collections import deque
from collections.abc import Callable
from collections.abc import Mapping

from confluent_kafka import KafkaException

#: Seconds that one look takes at the most, and between two of them.
_LOOK = 0.5
_PAUSE = 0.5
#: After so many looks it is believed that a topic is gone again.
_LOOKS = 20


class TopicRefresh:
    """Looks for topics until they are seen, and how many partitions they have.

    The hub asks; all else is the native thread's.

    :param topics: What the client sees, asked for so many seconds: that it asks is what
        makes it read what is new.
    """

    def __init__(
        self,
        topics: Callable[[float], Mapping[str, t.Any]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topics = topics
        self._clock = clock
        self._asked: deque[Mapping[str, int]] = deque()
        self._missing: dict[str, int] = {}
        # When it subscribes, the client looks by itself. A look right then may wait for
        # a fetch of nothing on the same connection, and the first records with it.
        self._next = clock() + _PAUSE
        self._left = 0

    def ask(self, topics: Mapping[str, int]) -> None:
        """Have it look for topics that have at least so many partitions."""
        self._asked.append(topics)

    def look(self) -> None:
        """Look once, if anything is sought, and it is time."""
        while self._asked:
            self._missing.update(self._asked.popleft())
            self._left = _LOOKS
        if not self._missing or self._clock() < self._next:
            return
        self._next = self._clock() + _PAUSE
        try:
            seen = self._topics(_LOOK)
        except KafkaException:
            return  # Once it answers again.
        self._left -= 1
        self._missing = {
            name: number
            for name, number in self._missing.items()
            if self._left and not _has(seen, name, number)
        }


def _has(seen: Mapping[str, t.Any], name: str, partitions: int) -> bool:
    return name in seen and len(seen[name].partitions) >= partitions
