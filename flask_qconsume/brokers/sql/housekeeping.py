"""Gives back messages of dead links, and deletes expired messages and dead letters."""

from __future__ import annotations

import threading
import time
import typing as t
from collections.abc import Sequence

import sqlalchemy as sa

from ...logs import get_logger
from ...text import pluralize
from .database import Database
from .database import Step
from .schema import DEAD
from .schema import LINK
from .schema import MESSAGE
from .schema import D
from .schema import L
from .schema import M
from .schema import now
from .statements import CLOSE_LINKS_OF
from .statements import READ_PROCESSES
from .statements import one_of
from .watcher import Watcher

logger = get_logger("flask_qconsume.brokers.sql")

#: Rows that one transaction changes, so that other transactions wait only briefly.
#: Dead letters are larger than messages.
_MESSAGES_PER_PORTION = 1_000
_DEAD_LETTERS_PER_PORTION = 200
#: Seconds after which a run ends; the next run continues.
_LONGEST_RUN_SECONDS = 2.0

_has_link = sa.exists(sa.select(L.id).where(L.id == M.owner))
_is_alive = sa.exists(sa.select(L.id).where(L.id == M.owner, L.until >= now()))
_is_expired = (M.expires <= now()) & M.owner.is_(None)

#: Owners that are dead links, with the queues whose messages they hold.
FIND_ABANDONED = (
    sa.select(M.owner, M.queue)
    .where(M.owner.is_not(None), sa.not_(_is_alive))
    .distinct()
)
#: One row: whether there are dead links, expired messages, expired dead letters.
FIND_EXPIRED = sa.select(
    sa.exists(sa.select(L.id).where(L.until < now())),
    sa.exists(sa.select(M.id).where(_is_expired)),
    sa.exists(sa.select(D.id).where(D.until <= now())),
)
EXPIRE_LINKS = sa.delete(LINK).where(L.until < now())
_abandoned = (
    sa.select(M.id)
    # Named, as a link that opens now would not be seen. Its number is a new one.
    .where(one_of(M.owner, "owners"), M.owner.is_not(None), sa.not_(_has_link))
    .limit(_MESSAGES_PER_PORTION)
    .with_for_update(skip_locked=True)
)
#: Parameters: owners. Gives back messages of links that no longer exist, and marks them
#: as redelivered.
RECLAIM = (
    sa.update(MESSAGE)
    .where(M.id.in_(_abandoned))
    .values(
        owner=None,
        redelivered=True,
        deaths=M.deaths + sa.case((M.redelivered, 1), else_=0),
    )
)
_expired = (
    sa.select(M.id)
    .where(_is_expired)
    .limit(_MESSAGES_PER_PORTION)
    .with_for_update(skip_locked=True)
)
DELETE_EXPIRED = sa.delete(MESSAGE).where(M.id.in_(_expired))
_expired_dead = (
    sa.select(D.id)
    .where(D.until <= now())
    .limit(_DEAD_LETTERS_PER_PORTION)
    .with_for_update(skip_locked=True)
)
DELETE_EXPIRED_DEAD = sa.delete(DEAD).where(D.id.in_(_expired_dead))


class Housekeeper:
    """Gives back messages of dead links, and deletes expired rows, for a whole process.

    A link calls :meth:`run` when it opens, and when it renews the leases of its
    process. A run executes three short queries, and writes only if it has to.
    """

    def __init__(self, database: Database, watcher: Watcher) -> None:
        self._database = database
        self._watcher = watcher
        self._lock = threading.Lock()

    def run(self) -> None:
        """Give back abandoned messages and delete expired rows, unless a run is active.

        :raises BrokerError: if the database is away.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._run()
        finally:
            self._lock.release()

    def _run(self) -> None:
        deadline = time.monotonic() + _LONGEST_RUN_SECONDS
        killed = self._close_links_of_killed()
        abandoned = self._database.read(FIND_ABANDONED)
        ((has_links, has_messages, has_letters),) = self._database.read(FIND_EXPIRED)
        if has_links:
            self._database.write([Step(EXPIRE_LINKS)])
        if abandoned:
            why = "was killed" if killed else "let their leases end"
            self._reclaim(abandoned, why, deadline)
        for process in killed:
            self._database.forget(process)
        if has_messages:
            self._repeat(Step(DELETE_EXPIRED), _MESSAGES_PER_PORTION, deadline)
        if has_letters:
            self._repeat(Step(DELETE_EXPIRED_DEAD), _DEAD_LETTERS_PER_PORTION, deadline)

    def _close_links_of_killed(self) -> list[str]:
        """Remove links of processes that have certainly ended; return the processes."""
        found = self._database.read(READ_PROCESSES)
        killed = [name for (name,) in found if self._database.is_dead(name)]
        if killed:
            self._database.write([Step(CLOSE_LINKS_OF, {"processes": killed})])
        return killed

    def _reclaim(
        self, abandoned: Sequence[Sequence[t.Any]], why: str, deadline: float
    ) -> None:
        owners = sorted({owner for owner, _ in abandoned})
        queues = {queue for _, queue in abandoned}
        reclaim = Step(RECLAIM, {"owners": owners})
        count = self._repeat(reclaim, _MESSAGES_PER_PORTION, deadline)
        if count:
            logger.warning(
                "Put %s back: the worker that held them %s",
                pluralize(count, "message"),
                why,
            )
            self._watcher.announce(queues)

    def _repeat(self, step: Step, portion: int, deadline: float) -> int:
        """Execute a step until nothing is left for it, or time is up."""
        total = 0
        while True:
            (done,) = self._database.write([step])
            total += done.changed
            if done.changed < portion or time.monotonic() > deadline:
                return total
