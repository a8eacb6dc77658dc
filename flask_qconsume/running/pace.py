"""How fast messages are begun where a web server shares the hub. No I/O, no clock.

Fed with how late the hub is, it makes the pause between two turns of the consumers
longer while that is more than the target, and shorter while it is less.
"""

from __future__ import annotations

#: The shortest pause in seconds that is not none at all.
_SHORTEST = 0.001

#: Below one ten samples make a difference of nine tenths; it is the weight of one.
_WEIGHT = 0.2

#: By how much each sample makes the pause longer or shorter.
_LONGER, _SHORTER = 1.25, 0.9


class Pace:
    """The pause between two turns, governed by the hub's latency.

    :param target: Seconds that the hub may be late.
    :param longest: The longest pause in seconds: it goes on however late the hub is.
    """

    def __init__(self, target: float, longest: float) -> None:
        self._target = target
        #: The longest pause in seconds.
        self.longest = longest
        #: Seconds that the hub is late, smoothed.
        self.late = 0.0
        #: Seconds from the end of one turn to the next one.
        self.pause = 0.0

    @property
    def slowed(self) -> bool:
        """Whether it pauses for as long as it may."""
        return self.pause >= self.longest

    def feed(self, late: float) -> None:
        """Take one more sample, in seconds."""
        self.late += (late - self.late) * _WEIGHT
        if self.late > self._target:
            longer = max(self.pause * _LONGER, _SHORTEST)
            self.pause = min(longer, self.longest)
        else:
            shorter = self.pause * _SHORTER
            self.pause = shorter if shorter >= _SHORTEST else 0.0
