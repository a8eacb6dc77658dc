"""Find subscriptions that read nothing while messages wait. No I/O, no clock."""

from __future__ import annotations

#: How many answers of the broker in a row must find messages before it is a problem.
ANSWERS = 3


class Starvation:
    """Measures how long a subscription has been idle while messages wait.

    :param stalled: Seconds after which that is a problem. Within these, the broker is
        asked :data:`ANSWERS` times how many messages wait.
    """

    def __init__(self, stalled: float) -> None:
        self._period = stalled / ANSWERS
        self._received = -1
        self._idle_since = 0.0
        self._answers = 0
        #: How many messages waited according to the last answer.
        self.backlog = 0

    @property
    def seconds(self) -> float:
        """Seconds for which messages have waited and none was read."""
        return self._answers * self._period

    def look(self, now: float, received: int, idle: bool) -> bool:
        """Note the subscription's state; return whether it is time to ask the broker.

        :param received: How many messages it has read so far.
        :param idle: Whether it has nothing to do.
        """
        if received != self._received or not idle:
            self._received, self._idle_since = received, now
            self._answers = self.backlog = 0
        return now - self._idle_since >= self._period

    def note_backlog(self, now: float, backlog: int) -> None:
        """Note the broker's answer: how many messages wait."""
        self.backlog = backlog
        self._answers = self._answers + 1 if backlog else 0
        self._idle_since = now
