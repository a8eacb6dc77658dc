"""Numbers of waiting messages: one query for all queues of an app.

All numbers are exact. Each number is counted in an index, without reading messages. The
age of the oldest message is read from the first messages of each priority; see
:data:`_MESSAGES_SEARCHED_PER_RANK`.
"""

from __future__ import annotations

import typing as t
from collections.abc import Collection
from collections.abc import Sequence

import sqlalchemy as sa

from ...broker.base import QueueStatus
from ...broker.base import SuspectsStatus
from ...broker.topology import QueuePlan
from .database import CALL_TIMEOUT_SECONDS
from .database import Database
from .database import TablesMissing
from .json_rows import decode_rows
from .json_rows import rows_as_json
from .schema import IS_READY
from .schema import D
from .schema import M
from .schema import now
from .statements import each
from .statements import one_of

#: Messages of each priority that are searched for the oldest one. They are in the order
#: in which they were stored. A retry or a delay changes the time of a message, and not
#: its place. So the oldest message is missed only behind this many retries in a row.
_MESSAGES_SEARCHED_PER_RANK = 1_000
#: Priorities from 0 to 9, negated.
_RANKS = tuple(range(-9, 1))

# Columns of the enclosing query, which names them.
_name = sa.literal_column("value.value", sa.Text())
_rank = sa.literal_column("ranks.rank", sa.SmallInteger())

_ranks = sa.union_all(
    *(sa.select(sa.literal_column(str(rank)).label("rank")) for rank in _RANKS)
).subquery("ranks")


def _find_oldest_ready() -> sa.ScalarSelect[float]:
    first = (
        sa.select(M.since)
        # With "rank = x" in place of BETWEEN, PostgreSQL might read the messages of all
        # queues by their numbers, until it finds enough of this queue.
        .where(M.queue == _name, M.rank.between(_rank, _rank), IS_READY)
        .order_by(M.rank, M.id)
        .limit(_MESSAGES_SEARCHED_PER_RANK)
        .subquery()
    )
    oldest_of_rank = sa.select(sa.func.min(first.c.since)).scalar_subquery()
    return sa.select(sa.func.min(oldest_of_rank)).select_from(_ranks).scalar_subquery()


def _count_by_queue(
    name: str, queue: sa.ColumnElement[str], *conditions: sa.ColumnElement[bool]
) -> sa.Subquery:
    """Count the rows of all queues in one pass, whichever index the database uses."""
    key = queue.label("queue")
    counted = sa.select(key, sa.func.count().label("number")).where(*conditions)
    return counted.group_by(key).subquery(name)


# Grouped by the plain column, SQLite would read all rows in the order of an index.
_unindexed = sa.func.coalesce(M.queue, "")
_unindexed_dead = sa.func.coalesce(D.queue, "")
_is_free = M.owner.is_(None)
_is_asked = one_of(M.queue, "queues")
_COUNTS = {
    "ready": _count_by_queue("ready", M.queue, _is_asked, IS_READY),
    "due": _count_by_queue("due", M.queue, _is_asked, _is_free, M.due <= now()),
    "delayed": _count_by_queue("delayed", M.queue, _is_asked, _is_free, M.due > now()),
    "held": _count_by_queue("held", _unindexed, M.owner.is_not(None)),
    # Subtracted from the other counts, so that these read nothing but an index.
    "expired": _count_by_queue(
        "expired",
        _unindexed,
        M.expires <= now(),
        _is_free,
        sa.func.coalesce(M.due, 0) <= now(),
    ),
    "dead": _count_by_queue("dead", D.queue, one_of(D.queue, "queues")),
    "expired_dead": _count_by_queue("expired_dead", _unindexed_dead, D.until <= now()),
}
_number = {
    name: sa.func.coalesce(counts.c.number, 0) for name, counts in _COUNTS.items()
}
_oldest_due = sa.select(sa.func.min(M.due)).where(
    M.queue == _name, _is_free, M.due <= now()
)
_names = each(sa.bindparam("queues")).table_valued("value", name="value")
_joined: t.Any = _names
for _each in _COUNTS.values():
    _joined = _joined.outerjoin(_each, _each.c.queue == _names.c.value)
#: Parameters: queues. One value: JSON with the columns of :class:`_Counts`.
COUNT = sa.select(
    rows_as_json(
        _names.c.value,
        _number["ready"] + _number["due"] - _number["expired"],
        _number["delayed"],
        _number["held"],
        _number["dead"] - _number["expired_dead"],
        _find_oldest_ready(),
        _oldest_due.scalar_subquery(),
    )
).select_from(_joined)


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
    """Count the messages of one queue that are ready, or its dead letters."""
    counts = _count_all(database, [queue], CALL_TIMEOUT_SECONDS)[queue]
    return counts.dead or counts.waiting


def _count_all(
    database: Database, names: Collection[str], timeout: float
) -> dict[str, _Counts]:
    try:
        (text,) = database.read_one(COUNT, {"queues": sorted(names)}, timeout)
    except TablesMissing:  # There are no tables yet.
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
