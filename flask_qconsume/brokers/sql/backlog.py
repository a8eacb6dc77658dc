"""Numbers of waiting messages: one query for all queues of an app.

All numbers are exact. Each is counted in an index, so 1,000,000 waiting messages take
some hundredths of a second. The age of the oldest message is read from the first
messages of each priority; see :data:`_MESSAGES_TO_DATE`.
"""

from __future__ import annotations

import typing as t
from collections.abc import Collection
from collections.abc import Sequence

import sqlalchemy as sa

from ...broker.base import QueueStatus
from ...broker.base import SuspectsStatus
from ...broker.topology import QueuePlan
from ...errors import TopologyMismatch
from .database import CALL_TIMEOUT_SECONDS
from .database import Database
from .dead_letters import count_dead
from .json_rows import decode_rows
from .json_rows import rows_as_json
from .schema import IS_READY
from .schema import M
from .schema import now
from .statements import each

#: Messages of each priority from which the oldest is found. The messages are in the
#: order in which they were stored, and only a retry or a delay makes one younger than
#: its place. So the oldest is missed only behind this many retries in a row.
_MESSAGES_TO_DATE = 1_000
#: Priorities from 0 to 9, negated.
_RANKS = tuple(range(-9, 1))

# Columns of the enclosing query, which names them.
_name = sa.literal_column("value.value", sa.Text())
_rank = sa.literal_column("ranks.rank", sa.SmallInteger())

_ranks = sa.union_all(
    *(sa.select(sa.literal_column(str(rank)).label("rank")) for rank in _RANKS)
).subquery("ranks")


def _count(*conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    counted = sa.select(sa.func.count()).where(M.queue == _name, *conditions)
    return counted.scalar_subquery()


def _find_oldest_ready() -> sa.ScalarSelect[float]:
    first = (
        sa.select(M.since)
        .where(M.queue == _name, M.rank == _rank, IS_READY)
        .order_by(M.id)
        .limit(_MESSAGES_TO_DATE)
        .subquery()
    )
    oldest_of_rank = sa.select(sa.func.min(first.c.since)).scalar_subquery()
    return sa.select(sa.func.min(oldest_of_rank)).select_from(_ranks).scalar_subquery()


def _count_by_queue(name: str, *conditions: sa.ColumnElement[bool]) -> sa.Subquery:
    counted = sa.select(M.queue, sa.func.count().label("number"))
    return counted.where(*conditions).group_by(M.queue).subquery(name)


_is_due = M.owner.is_(None) & (M.due <= now())
_oldest_due = sa.select(sa.func.min(M.due)).where(M.queue == _name, _is_due)
_held = _count_by_queue("held", M.owner.is_not(None))
# Subtracted, so that the count of many messages reads an index only.
_expired = _count_by_queue(
    "expired",
    M.expires <= now(),
    M.owner.is_(None),
    sa.func.coalesce(M.due, 0) <= now(),
)
_names = each(sa.bindparam("queues")).table_valued("value", name="value")
#: Parameters: queues. One value: JSON with the columns of :class:`_Counts`.
COUNT = sa.select(
    rows_as_json(
        _names.c.value,
        _count(IS_READY) + _count(_is_due) - sa.func.coalesce(_expired.c.number, 0),
        _count(M.owner.is_(None), M.due > now()),
        sa.func.coalesce(_held.c.number, 0),
        count_dead(_name),
        _find_oldest_ready(),
        _oldest_due.scalar_subquery(),
    )
).select_from(
    _names.outerjoin(_held, _held.c.queue == _names.c.value).outerjoin(
        _expired, _expired.c.queue == _names.c.value
    )
)


class _Counts(t.NamedTuple):
    """The numbers of messages in one queue."""

    queue: str
    waiting: int = 0
    delayed: int = 0
    in_hand: int = 0
    dead: int = 0
    oldest_ready: float | None = None
    oldest_due: float | None = None

    @property
    def oldest(self) -> float | None:
        found = (self.oldest_ready, self.oldest_due)
        return min((each for each in found if each is not None), default=None)


def read_statuses(
    database: Database,
    plans: Sequence[QueuePlan],
    timeout: float = CALL_TIMEOUT_SECONDS,
) -> list[QueueStatus]:
    """Count the messages of each queue, of its suspects and of its dead letters."""
    names = {name for plan in plans for name in (plan.name, plan.suspects, plan.dead)}
    counts = _count_all(database, names, timeout)
    return [
        _create_status(counts[plan.name], counts[plan.suspects], counts[plan.dead])
        for plan in plans
    ]


def count_waiting(database: Database, queue: str) -> int:
    """Count the messages of one queue that are ready; or the dead letters there."""
    counts = _count_all(database, [queue], CALL_TIMEOUT_SECONDS)[queue]
    return counts.dead or counts.waiting


def _count_all(
    database: Database, names: Collection[str], timeout: float
) -> dict[str, _Counts]:
    try:
        (text,) = database.read_one(COUNT, {"queues": sorted(names)}, timeout)
    except TopologyMismatch:  # There are no tables yet.
        return {name: _Counts(name) for name in names}
    return {row[0]: _Counts(*row) for row in decode_rows(text)}


def _create_status(main: _Counts, suspects: _Counts, dead: _Counts) -> QueueStatus:
    return QueueStatus(
        waiting=main.waiting,
        delayed=main.delayed,
        in_hand=main.in_hand + suspects.in_hand,
        suspects=SuspectsStatus(suspects.waiting + suspects.delayed, suspects.oldest),
        dead_letters=dead.dead,
        oldest=main.oldest,
    )
