"""Finds subscriptions that read nothing although messages wait. No I/O, no clock."""

from __future__ import annotations

#: How many times in a row the broker must report messages before it is a problem.
ANSWERS = 3


class Starvation:
    """Measures for how long a subscription has read nothing while messages wait.

    :param stalled: Seconds of idleness that are a problem. Within these seconds, the
        broker is asked :data:`ANSWERS` times how many messages wait.
    """

    def __init__(self, stalled: float) -> None:
        self._period = stalled / ANSWERS
        self._received = -1
        self._idle_since = 0.0
        self._answers = 0
        #: How many messages waited according to the broker's last answer.
        self.backlog = 0

    @property
    def seconds(self) -> float:
        """Seconds for which messages have been waiting, and none was read."""
        return self._answers * self._period

    def look(self, now: float, received: int, idle: bool) -> bool:
        """Note what the subscription does; return true if the broker must be asked.

        :param received: How many messages the subscription has read so far.
        :param idle: Whether the subscription has nothing to do.
        """
        if received != self._received or not idle:
            self._received, self._idle_since = received, now
            self._answers = self.backlog = 0
        return now - self._idle_since >= self._period

    def note_backlog(self, now: float, backlog: int) -> None:
        self.backlog = backlog
        self._answers = self._answers + 1 if backlog else 0
        self._idle_since = now
