"""Whether Kafka still answers, after its client has lost every connection.

A member keeps its place over an outage: the client connects again by itself, and is in
its group as before. A new member would find its own predecessor there, which cannot
have left, and the group would rest until that one's session is over. So a client is
given up only once its session is. Runs in the native thread; knows no client.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import KafkaException

#: Seconds that one look takes at the most, and between two of them.
_LOOK = 1.0
_PAUSE = 0.5


class Outage:
    """Begins with a doubt, and ends with an answer, or with the session.

    :param session: Seconds after which the group has given the member up.
    :param clock: Seconds, from any moment on.
    """

    def __init__(
        self, session: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        #: For the hub: whether nobody answers.
        self.lasts = False
        self._session = session
        self._clock = clock
        self._doubted = False
        self._since = self._next = 0.0

    @property
    def begun(self) -> bool:
        """Whether it is in doubt that anybody is there."""
        return self._doubted

    def doubt(self) -> None:
        """All connections were lost; perhaps only since they were idle."""
        if not self._doubted:
            self._doubted = True
            self._since = self._next = self._clock()

    def look(self, ask: Callable[[float], object]) -> bool:
        """Ask whether anybody is there, if that is in doubt, and time.

        :param ask: Asks for so many seconds.
        :returns: Whether that is news.
        :raises KafkaException: if nobody answers, and the session is over.
        """
        if not self._doubted or self._clock() < self._next:
            return False
        before = self.lasts
        try:
            ask(_LOOK)
        except KafkaException:
            if self._clock() - self._since >= self._session:
                raise
            self.lasts, self._next = True, self._clock() + _PAUSE
        else:
            self.lasts = self._doubted = False
        return self.lasts != before
