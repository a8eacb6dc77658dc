"""Detects whether Kafka still answers after the client has lost every connection.

A consumer keeps its membership over an outage: librdkafka reconnects by itself, and the
consumer is in its group as before. A new member would have to wait for the end of its
predecessor's session, because the predecessor could not leave. So the client is given
up only at the session timeout. librdkafka reports when all connections are lost, which
includes idle ones, but it never reports a new connection; so the native thread sends
requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import KafkaException

#: Seconds that a request may take, and between two requests.
_QUESTION_TIMEOUT_SECONDS = 1.0
_PAUSE_SECONDS = 0.5


class Outage:
    """An outage of Kafka: from the loss of all connections to Kafka's next answer.

    :param session: Session timeout in seconds, after which the group drops the member.
    :param clock: Returns seconds, like :func:`time.monotonic`.
    """

    def __init__(
        self, session: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        #: Whether a request was not answered. gevent's thread reads this.
        self.is_confirmed = False
        #: Whether all connections were lost, and no request was answered since.
        self.is_possible = False
        self._session = session
        self._clock = clock
        self._began = self._next_question = 0.0

    def begin(self) -> None:
        """Note that all connections were lost, so that an outage is possible."""
        if not self.is_possible:
            self.is_possible = True
            self._began = self._next_question = self._clock()

    def check(self, ask: Callable[[float], object]) -> bool:
        """Send a request if an outage is possible, and none was sent just now.

        :param ask: Sends any request, with a time limit in seconds.
        :returns: Whether :attr:`is_confirmed` has changed.
        :raises KafkaException: if the session timeout is over without an answer.
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
