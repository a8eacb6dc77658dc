"""The statements of both databases, in SQLAlchemy's language. No I/O.

The parameters of a statement are named in its comment.
"""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from .schema import BINDING
from .schema import DEAD
from .schema import IS_READY
from .schema import LINK
from .schema import MESSAGE
from .schema import QUEUE
from .schema import L
from .schema import M
from .schema import now

#: Delayed messages that one statement makes ready, at most.
_DUE_MESSAGES_PER_STATEMENT = 1_000


class one_of(FunctionElement[t.Any]):
    """Condition that a column's value is in a parameter, which is a list.

    A list as a parameter, unlike ``IN`` with a parameter for each value, keeps the text
    of the statement the same, so that it is compiled and planned once.
    """

    # Not Boolean: for SQLite, SQLAlchemy would write 'IN (...) = 1', for which SQLite
    # uses no index.
    type = sa.types.NULLTYPE
    inherit_cache = True

    def __init__(self, column: sa.ColumnElement[t.Any], parameter: str) -> None:
        super().__init__(column, sa.bindparam(parameter))


@compiles(one_of, "postgresql")
def _compile_for_postgresql(element: one_of, compiler: t.Any, **kw: t.Any) -> str:
    column, parameter = element.clauses
    kind = "TEXT" if isinstance(column.type, sa.Text) else "BIGINT"
    values = compiler.process(parameter, **kw)
    return f"{compiler.process(column, **kw)} = ANY(CAST({values} AS {kind}[]))"


@compiles(one_of, "sqlite")
def _compile_for_sqlite(element: one_of, compiler: t.Any, **kw: t.Any) -> str:
    column, parameter = element.clauses
    values = compiler.process(parameter, **kw)
    left = compiler.process(column, **kw)
    return f"{left} IN (SELECT value FROM json_each({values}))"


class each(FunctionElement[str]):
    """The texts of a parameter, which is a list, as rows of one column ``value``."""

    inherit_cache = True


@compiles(each, "postgresql")
def _compile_each_for_postgresql(element: each, compiler: t.Any, **kw: t.Any) -> str:
    return f"unnest(CAST({compiler.process(element.clauses, **kw)} AS TEXT[]))"


@compiles(each, "sqlite")
def _compile_each_for_sqlite(element: each, compiler: t.Any, **kw: t.Any) -> str:
    return f"json_each({compiler.process(element.clauses, **kw)})"


def _parameter(name: str, kind: sa.types.TypeEngine[t.Any] | None = None) -> t.Any:
    return sa.bindparam(name, type_=kind)


_queue = _parameter("queue_", sa.Text())
_me = _parameter("me", sa.BigInteger())
# For a plain comparison, PostgreSQL would use the index of 'owner', and read all
# deleted rows that this link has ever owned.
_is_mine = sa.func.coalesce(M.owner, 0) == _me
# SQLite would use the index of 'queue' for a plain comparison, not the numbers.
_is_in_queue = sa.func.coalesce(M.queue, "") == _queue

_names = each(_parameter("queues")).table_valued("value", name="value")
#: Parameters: queues. Rows: queue, whether a message is ready, seconds until the next
#: delayed message is due.
FIND_READY = sa.select(
    _names.c.value,
    sa.exists(sa.select(M.id).where(M.queue == _names.c.value, IS_READY)),
    sa.select(sa.func.min(M.due) - now())
    .where(M.queue == _names.c.value, M.due.is_not(None))
    .scalar_subquery(),
).select_from(_names)

_due = (
    sa.select(M.id)
    .where(one_of(M.queue, "queues"), M.due <= now(), M.owner.is_(None))
    .order_by(M.due)
    .limit(_DUE_MESSAGES_PER_STATEMENT)
    .with_for_update(skip_locked=True)
)
#: Parameters: queues. Makes delayed messages that are due ready.
MAKE_READY = sa.update(MESSAGE).where(M.id.in_(_due)).values(due=None)

#: Parameters: queue_, n. The numbers of the messages to be handled next.
PICK = (
    sa.select(M.id)
    .where(M.queue == _queue, IS_READY)
    .order_by(M.rank, M.id)
    .limit(_parameter("n", sa.Integer()))
)
#: Parameters: ids, me, queue_. Only messages that are still free, and in the queue.
CLAIM = (
    sa.update(MESSAGE)
    .where(one_of(M.id, "ids"), _is_in_queue, IS_READY)
    .values(owner=_me)
)
CLAIMED_COLUMNS = (M.id, M.rank, M.redelivered, M.deaths, M.meta, M.body, M.key)
#: Parameters: ids, me.
READ_CLAIMED = (
    sa.select(*CLAIMED_COLUMNS)
    .where(one_of(M.id, "ids"), _is_mine)
    .order_by(M.rank, M.id)
)

# In a queue with an order, a message is *blocked* by another message with its key: by
# an earlier message, or by a later message that is in hand. The latter happens if the
# later message was committed first.
_other = MESSAGE.alias("other")
_is_blocked = M.key.is_not(None) & sa.exists(
    sa.select(sa.literal(1)).where(
        _other.c.queue == M.queue,
        _other.c.key == M.key,
        (_other.c.id < M.id) | ((_other.c.id > M.id) & _other.c.owner.is_not(None)),
    )
)
_after_rank = _parameter("after_rank", sa.Integer())
#: Parameters: queue_, n, after_rank, after. Rows: number, rank, whether it is blocked.
PICK_IN_ORDER = (
    sa.select(M.id, M.rank, _is_blocked)
    .where(
        M.queue == _queue,
        IS_READY,
        sa.not_(M.redelivered),
        (M.rank > _after_rank)
        | ((M.rank == _after_rank) & (M.id > _parameter("after", sa.BigInteger()))),
    )
    .order_by(M.rank, M.id)
    .limit(_parameter("n", sa.Integer()))
)
#: Parameters: queue_. The number of the first message that was in hand at a death.
PICK_SUSPECT_IN_ORDER = (
    sa.select(M.id)
    .where(M.queue == _queue, IS_READY, M.redelivered, sa.not_(_is_blocked))
    .order_by(M.id)
    .limit(1)
)
_unblocked = (
    sa.select(M.id)
    .where(
        one_of(M.id, "ids"),
        _is_in_queue,
        IS_READY,
        M.redelivered == _parameter("suspect", sa.Boolean()),
        sa.not_(_is_blocked),
    )
    .order_by(M.id)
    .with_for_update(skip_locked=True, of=MESSAGE)
)
#: Parameters: ids, me, queue_, suspect. Only messages that are free and not blocked.
CLAIM_IN_ORDER = sa.update(MESSAGE).where(M.id.in_(_unblocked)).values(owner=_me)
#: Parameters: ids, me. Claimed messages that are blocked after all: another process has
#: claimed a message with the same key at the same time.
FIND_BLOCKED = sa.select(M.id).where(
    one_of(M.id, "ids"),
    _is_mine,
    sa.exists(
        sa.select(sa.literal(1)).where(
            _other.c.queue == M.queue,
            _other.c.key == M.key,
            _other.c.id != M.id,
            _other.c.owner.is_not(None),
        )
    ),
)

#: Parameters: ids, me.
ACK = sa.delete(MESSAGE).where(one_of(M.id, "ids"), _is_mine)
#: Parameters: id_, me, queue_, delay (seconds or null), since_ (a time or null), meta_.
MOVE = (
    sa.update(MESSAGE)
    .where(M.id == _parameter("id_", sa.BigInteger()), _is_mine)
    .values(
        queue=_queue,
        owner=None,
        due=now() + _parameter("delay", sa.Double()),
        since=sa.func.coalesce(
            _parameter("since_", sa.Double()),
            now() + sa.func.coalesce(_parameter("delay", sa.Double()), 0.0),
        ),
        redelivered=False,
        deaths=0,
        expires=None,
        meta=_parameter("meta_", sa.Text()),
    )
)
_id = _parameter("id_", sa.BigInteger())
#: Parameters: id_, me, queue_, keep (seconds), meta_, and those of
#: :func:`.dead_columns.make_columns`.
ADD_DEAD_LETTER = sa.insert(DEAD).from_select(
    [
        *("queue", "died_at", "until", "rank", "key", "message_id", "consumer"),
        *("error", "place", "search", "size", "meta", "body"),
    ],
    sa.select(
        _queue,
        sa.func.coalesce(_parameter("died_at_", sa.Double()), now()),
        now() + _parameter("keep", sa.Double()),
        M.rank,
        M.key,
        _parameter("message_id_", sa.Text()),
        _parameter("consumer_", sa.Text()),
        _parameter("error_", sa.Text()),
        _parameter("place_", sa.Text()),
        _parameter("search_", sa.Text()),
        _parameter("size_", sa.Integer()),
        _parameter("meta_", sa.Text()),
        M.body,
    )
    .where(M.id == _id, _is_mine)
    .with_for_update(),
)
#: Parameters: ids, me.
GIVE_BACK = sa.update(MESSAGE).where(one_of(M.id, "ids"), _is_mine).values(owner=None)

#: Parameters: queue_, lease (seconds), process_. Row: the new link's number.
OPEN_LINK = (
    sa.insert(LINK)
    .values(
        queue=_queue,
        until=now() + _parameter("lease", sa.Double()),
        process=_parameter("process_", sa.Text()),
    )
    .returning(L.id)
)
#: Parameters: ids, lease.
RENEW_LINKS = (
    sa.update(LINK)
    .where(one_of(L.id, "ids"))
    .values(until=now() + _parameter("lease", sa.Double()))
)
#: Parameters: ids. Rows: the numbers of those links that still exist.
FIND_LINKS = sa.select(L.id).where(one_of(L.id, "ids"))
#: Parameters: me. Gives back all messages of a link, to their places and unmarked.
GIVE_BACK_ALL = sa.update(MESSAGE).where(M.owner == _me).values(owner=None)
#: Parameters: me.
CLOSE_LINK = sa.delete(LINK).where(L.id == _me)

#: Rows: the processes that have links.
READ_PROCESSES = sa.select(L.process).where(L.process != "").distinct()
#: Parameters: queues. Rows: the processes that consume one of the queues.
READ_READERS = READ_PROCESSES.where(one_of(L.queue, "queues"))
#: Parameters: processes.
CLOSE_LINKS_OF = sa.delete(LINK).where(one_of(L.process, "processes"))

#: Parameters: exchange_. Rows: queue, pattern, kind.
READ_BINDINGS = sa.select(BINDING.c.queue, BINDING.c.pattern, BINDING.c.kind).where(
    BINDING.c.exchange == _parameter("exchange_", sa.Text())
)
READ_QUEUES = sa.select(QUEUE.c.name)
_binding = (
    BINDING.c.queue == _queue,
    BINDING.c.exchange == _parameter("exchange_", sa.Text()),
    BINDING.c.pattern == _parameter("pattern_", sa.Text()),
)
#: Parameters: queue_, exchange_, pattern_, kind_.
BIND = sa.insert(BINDING).from_select(
    ["queue", "exchange", "pattern", "kind"],
    sa.select(
        _queue,
        _parameter("exchange_", sa.Text()),
        _parameter("pattern_", sa.Text()),
        _parameter("kind_", sa.Text()),
    ).where(
        ~sa.exists(
            sa.select(sa.literal(1))
            .select_from(BINDING)
            .where(*_binding, BINDING.c.kind == _parameter("kind_", sa.Text()))
        )
    ),
)
#: Parameters: queue_, exchange_, pattern_.
UNBIND = sa.delete(BINDING).where(*_binding)
#: Parameters: queue_.
ADD_QUEUE = sa.insert(QUEUE).from_select(
    ["name"],
    sa.select(_queue).where(
        ~sa.exists(
            sa.select(sa.literal(1)).select_from(QUEUE).where(QUEUE.c.name == _queue)
        )
    ),
)
