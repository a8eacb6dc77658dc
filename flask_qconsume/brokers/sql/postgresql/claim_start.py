"""The place in a queue's index from which claims look while the beginning is slow.

A transaction that stays open elsewhere, such as a backup's, makes PostgreSQL keep all
rows that were deleted since. Each claim walks over them: after 60,000 messages it took
6 times as long (1.4 ms, then 8.8 ms). No I/O.
"""

from __future__ import annotations

import time
import typing as t
from collections.abc import Sequence

#: Seconds for which the server looks for messages in a slow claim.
_SLOW_SECONDS = 0.005
#: Slow claims in a row after which the beginning is skipped.
_SLOW_CLAIMS = 5
#: Seconds for which the beginning is skipped. Messages that are put back wait as long.
_SKIPPED_SECONDS = 1.0


class ClaimStart:
    """The place from which to claim messages of one queue."""

    def __init__(self) -> None:
        self._slow_claims = 0
        self._key: tuple[int, int] | None = None
        self._skipped_until = 0.0

    def get(self) -> tuple[int, int] | None:
        """Return the rank and the number of the first message to look at.

        ``None`` means to look at all of them, and to call :meth:`note_full_look` then.
        """
        if self._slow_claims < _SLOW_CLAIMS or time.monotonic() > self._skipped_until:
            return None
        return self._key

    def note_full_look(self, seconds: float) -> None:
        """Remember how long the server looked for messages, from the beginning."""
        self._slow_claims = self._slow_claims + 1 if seconds > _SLOW_SECONDS else 0
        self._skipped_until = time.monotonic() + _SKIPPED_SECONDS

    def note_claimed(self, rows: Sequence[Sequence[t.Any]]) -> None:
        """Remember the first of the claimed messages; the next ones come after it.

        :param rows: The columns ``CLAIMED_COLUMNS``, in the order of handling.
        """
        id, rank, *_ = rows[0]
        self._key = rank, id
