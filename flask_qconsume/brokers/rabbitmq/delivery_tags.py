"""Which delivery tags of a channel are settled. No I/O."""

from __future__ import annotations

from collections.abc import Iterable


class Tags:
    """The tags of one channel: 1, 2, 3, … in the order of delivery."""

    def __init__(self) -> None:
        #: All tags below this one are settled.
        self._low = 1
        #: Those above it that are.
        self._done: set[int] = set()

    def done(self, tags: Iterable[int]) -> list[tuple[int, bool]]:
        """Note that these are done with.

        A tag that was noted before is left out: the broker closes the channel over it.

        :returns: What to settle: tags, and whether each stands for all up to it (the
            others among those are settled already).
        """
        new = {tag for tag in tags if tag >= self._low and tag not in self._done}
        if not new:
            return []
        self._done |= new
        before = self._low
        while self._low in self._done:
            self._done.remove(self._low)
            self._low += 1
        rest = [(tag, False) for tag in sorted(new) if tag >= self._low]
        if self._low == before:
            return rest
        # The tag itself must be one that is not settled yet, or the broker closes the
        # channel, although it stands for all up to it.
        return [(max(tag for tag in new if tag < self._low), True), *rest]
