"""A connection of psycopg with a time limit that other threads may change."""

from __future__ import annotations

import time
import typing as t

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

from ....first_use import ForkGuard

RV = t.TypeVar("RV")

#: Seconds between two checks of the time limit; psycopg's default, for signals.
_CHECK_INTERVAL_SECONDS = 0.1


class TimeLimitReached(psycopg.OperationalError):
    """The database did not answer in time, or the connection was interrupted."""


class PostgresConnection(psycopg.Connection[tuple[t.Any, ...]]):
    """A connection whose calls end at :attr:`deadline`, also if the server hangs.

    A connection that has reached its deadline must be closed: the answer to the
    interrupted call may still arrive.
    """

    #: When calls end, by :func:`time.monotonic`. Another thread may set it.
    deadline = float("inf")

    @property
    def is_idle(self) -> bool:
        """True for an open connection without a transaction or an expected answer."""
        return self.pgconn.transaction_status == TransactionStatus.IDLE

    def interrupt(self) -> None:
        """End a call of another thread within 0.1 seconds."""
        self.deadline = 0.0

    def is_alive(self) -> bool:
        """Return whether an idle connection is still open, without a round trip."""
        try:
            # The first call may read the server's reason, and the second call the end.
            self.pgconn.consume_input()
            self.pgconn.consume_input()
        except psycopg.Error:
            return False
        return self.is_idle

    def wait(
        self,
        gen: PQGen[RV],
        interval: float = _CHECK_INTERVAL_SECONDS,
        timeout: float | None = None,
    ) -> RV:
        # psycopg calls this for each wait. Its releases before 3.3 have no timeout.
        options = {} if timeout is None else {"timeout": timeout}
        return super().wait(self._limit(gen), interval, **options)

    def _limit(self, gen: PQGen[RV]) -> PQGen[RV]:
        """Wrap a generator of psycopg, which is also resumed after each interval."""
        guard = ForkGuard()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                # A copy of a greenlet in a forked child must not read the answer.
                guard.block_if_forked()
                if not ready and time.monotonic() >= self.deadline:
                    raise TimeLimitReached("the server did not answer in time")
                wanted = gen.send(ready)
        except StopIteration as end:
            return t.cast(RV, end.value)
