"""The place in a queue's index from which claims search while its beginning is slow.

A transaction that stays open elsewhere, such as a backup's, makes PostgreSQL keep all
rows that were deleted since. Each claim reads them: after 60,000 deleted messages, a
claim took 6 times as long as before (8.8 ms instead of 1.4 ms). No I/O.
"""

from __future__ import annotations

import time
import typing as t
from collections.abc import Sequence

#: Seconds of searching on the server from which a claim counts as slow.
_SLOW_SECONDS = 0.005
#: Slow claims in a row after which the beginning is skipped.
_MAX_SLOW_CLAIMS = 5
#: Seconds for which the beginning is skipped. Messages given back wait as long.
_SKIP_SECONDS = 1.0


class ClaimStart:
    """The place from which to claim messages of one queue."""

    def __init__(self) -> None:
        self._slow_claims = 0
        self._key: tuple[int, int] | None = None
        self._skipped_until = 0.0

    def get(self) -> tuple[int, int] | None:
        """Return the rank and the number of the first message to read.

        ``None`` means to search from the beginning, and then to call
        :meth:`note_full_search`.
        """
        if (
            self._slow_claims < _MAX_SLOW_CLAIMS
            or time.monotonic() > self._skipped_until
        ):
            return None
        return self._key

    def note_full_search(self, seconds: float) -> None:
        """Remember how long the server searched from the beginning."""
        self._slow_claims = self._slow_claims + 1 if seconds > _SLOW_SECONDS else 0
        self._skipped_until = time.monotonic() + _SKIP_SECONDS

    def note_claimed(self, rows: Sequence[Sequence[t.Any]]) -> None:
        """Remember the first claimed message; the next claim searches from it.

        :param rows: The columns ``CLAIMED_COLUMNS``, in the order of handling.
        """
        id, rank, *_ = rows[0]
        self._key = rank, id
