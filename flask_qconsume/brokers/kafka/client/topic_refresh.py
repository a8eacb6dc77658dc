"""Makes a client read the list of topics when a new topic is known to exist.

By itself, a librdkafka consumer finds new topics and partitions at its next refresh:
after five minutes, unless 'topic.metadata.refresh.interval.ms' says less. At ten
seconds, a hundred consumers in one process spent a third of their processor time at
rest on it. So the interval stays librdkafka's, one client per process looks for new
topics (:mod:`..topics`), and the consumers that read them are told.
"""

from __future__ import annotations

import time
import typing as t
from collections import deque
from collections.abc import Callable
from collections.abc import Mapping

from confluent_kafka import KafkaException

#: Seconds that one list of topics may take, and between two lists.
_LOOK_TIMEOUT_SECONDS = 0.5
_PAUSE_SECONDS = 0.5
#: Number of lists without a topic after which the topic counts as deleted.
_MAX_REFRESHES = 20


class TopicRefresh:
    """Makes a Kafka client list topics until it knows all partitions of new topics.

    gevent's thread calls :meth:`request`, the native thread :meth:`look_if_due`.

    :param list_topics: Makes the client read its topics, with a time limit in seconds,
        and returns them.
    """

    def __init__(
        self,
        list_topics: Callable[[float], Mapping[str, t.Any]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._list_topics = list_topics
        self._clock = clock
        self._requests: deque[Mapping[str, int]] = deque()
        self._missing: dict[str, int] = {}
        # The client lists topics itself when it subscribes. Another list right then
        # could delay the first records behind an empty fetch on the same connection.
        self._next_refresh = clock() + _PAUSE_SECONDS
        self._refreshes_left = 0

    def request(self, topics: Mapping[str, int]) -> None:
        """Make the client list topics until it knows these topics' partitions."""
        self._requests.append(topics)

    def look_if_due(self) -> None:
        """List the topics, if a topic is missing and the last list is old."""
        while self._requests:
            self._missing.update(self._requests.popleft())
            self._refreshes_left = _MAX_REFRESHES
        if not self._missing or self._clock() < self._next_refresh:
            return
        self._next_refresh = self._clock() + _PAUSE_SECONDS
        try:
            seen = self._list_topics(_LOOK_TIMEOUT_SECONDS)
        except KafkaException:
            return  # Look again once the broker answers.
        self._refreshes_left -= 1
        self._missing = {
            name: count
            for name, count in self._missing.items()
            if self._refreshes_left and not _is_complete(seen, name, count)
        }


def _is_complete(seen: Mapping[str, t.Any], name: str, partitions: int) -> bool:
    return name in seen and len(seen[name].partitions) >= partitions
