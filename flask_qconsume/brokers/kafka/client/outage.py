"""Whether Kafka still answers after the client has lost every connection.

A consumer keeps its membership over an outage: librdkafka reconnects by itself, and is
in its group as before. A new member would have to wait for its own predecessor, which
could not leave, until that one's session is over. So the client is given up only at
the session timeout. librdkafka reports when all connections are lost, which idle
connections are as well, and never that one is back; so the native thread asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import KafkaException

#: Seconds that one question may take, and between two of them.
_QUESTION_TIMEOUT_SECONDS = 1.0
_PAUSE_SECONDS = 0.5


class Outage:
    """Starts when librdkafka reports ``_ALL_BROKERS_DOWN``, ends with the next answer.

    :param session: Seconds after which the group removes the member.
    :param clock: Returns seconds, like :func:`time.monotonic`.
    """

    def __init__(
        self, session: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        #: Whether a question went unanswered. The hub reads it.
        self.is_confirmed = False
        #: Whether all connections were lost, and no question was answered since.
        self.is_possible = False
        self._session = session
        self._clock = clock
        self._began = self._next_question = 0.0

    def begin(self) -> None:
        """Note that all connections were lost, perhaps only because they were idle."""
        if not self.is_possible:
            self.is_possible = True
            self._began = self._next_question = self._clock()

    def check(self, ask: Callable[[float], object]) -> bool:
        """Ask the broker for an answer, if an outage is possible and a question due.

        :param ask: Asks the broker anything, with a time limit in seconds.
        :returns: Whether :attr:`is_confirmed` has changed.
        :raises KafkaException: if the session is over without an answer.
        """
        if not self.is_possible or self._clock() < self._next_question:
            return False
        before = self.is_confirmed
        try:
            ask(_QUESTION_TIMEOUT_SECONDS)
        except KafkaException:
            if self._clock() - self._began >= self._session:
                raise
            self.is_confirmed = True
            self._next_question = self._clock() + _PAUSE_SECONDS
        else:
            self.is_confirmed = self.is_possible = False
        return self.is_confirmed != before
