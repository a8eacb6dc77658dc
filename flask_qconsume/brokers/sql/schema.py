"""The tables that hold queues, bindings, messages and dead letters. No I/O."""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

#: The version of these tables, which the table ``qconsume_version`` holds.
VERSION = 1

METADATA = sa.MetaData()


class now(FunctionElement[float]):
    """The database's own time, in seconds since 1970."""

    type = sa.Double()
    inherit_cache = True


@compiles(now, "postgresql")
def _compile_now_for_postgresql(element: now, compiler: t.Any, **options: t.Any) -> str:
    # The time at which the statement began, not the transaction. PostgreSQL uses no
    # index for a comparison with 'clock_timestamp', which changes in a statement.
    return "extract(epoch from statement_timestamp())::float8"


@compiles(now, "sqlite")
def _compile_now_for_sqlite(element: now, compiler: t.Any, **options: t.Any) -> str:
    # In days since noon of 4714-11-24 BC; with milliseconds, unlike 'unixepoch'.
    return "((julianday('now') - 2440587.5) * 86400.0)"


class random_name(FunctionElement[str]):
    """A random text, made by the database."""

    type = sa.Text()
    inherit_cache = True


@compiles(random_name, "postgresql")
def _compile_name_for_postgresql(
    element: random_name, compiler: t.Any, **options: t.Any
) -> str:
    return "gen_random_uuid()::text"


@compiles(random_name, "sqlite")
def _compile_name_for_sqlite(
    element: random_name, compiler: t.Any, **options: t.Any
) -> str:
    return "lower(hex(randomblob(16)))"


def _number(name: str, **options: t.Any) -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column(name, kind, **options)


def _text(name: str, **options: t.Any) -> sa.Column[str]:
    return sa.Column(name, sa.Text, **{"nullable": False, **options})


def _time(name: str, **options: t.Any) -> sa.Column[float]:
    return sa.Column(name, sa.Double, **options)


#: By default, autovacuum waits until a fifth of a table has changed, and pauses after a
#: few pages. Rows of these tables live for seconds, so it must run often and fast.
_VACUUM = {
    "storage": "autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0"
}


class CreateTable(sa.schema.CreateTable):
    """Creates a table that does not exist, on PostgreSQL with its storage parameters.

    SQLAlchemy 2.0 has no argument of a table for storage parameters; 2.1 has one.
    """

    def __init__(self, table: sa.Table) -> None:
        super().__init__(table, if_not_exists=True)


@compiles(CreateTable, "postgresql")
def _compile_table_for_postgresql(
    element: CreateTable, compiler: t.Any, **options: t.Any
) -> str:
    text = str(compiler.visit_create_table(element, **options)).rstrip()
    storage = element.element.info.get("storage")
    return f"{text} WITH ({storage})" if storage else text


def _table(name: str, *columns: sa.schema.SchemaItem, **options: t.Any) -> sa.Table:
    # Without AUTOINCREMENT, SQLite uses the highest number again after its row is
    # deleted, and a late acknowledgement would delete another message.
    options["sqlite_autoincrement"] = True
    return sa.Table(f"qconsume_{name}", METADATA, *columns, **options)


def _types(**allowed: str) -> sa.CheckConstraint:
    """Let SQLite refuse values of other types, as PostgreSQL does.

    Otherwise another program could insert a message that is never due.
    """
    rules = (f"typeof({name}) IN ({kinds})" for name, kinds in allowed.items())
    check = sa.CheckConstraint(" AND ".join(rules), name="qconsume_message_types")
    return check.ddl_if(dialect="sqlite")


_WHOLE, _MAYBE_NUMBER = "'integer'", "'integer', 'real', 'null'"

QUEUE = _table("queue", _text("name", primary_key=True))
#: ``kind`` is the type of the exchange: ``topic`` or ``direct``.
BINDING = _table(
    "binding",
    _text("queue", primary_key=True),
    _text("exchange", primary_key=True),
    _text("pattern", primary_key=True),
    _text("kind", primary_key=True),
)
#: One row for each link that consumes a queue; the link is dead after ``until``.
LINK = _table(
    "link",
    _number("id", primary_key=True),
    _text("queue"),
    _time("until", nullable=False),
    _text("process", server_default=""),
    info=_VACUUM,
)
MESSAGE = _table(
    "message",
    _number("id", primary_key=True),
    _text("queue"),
    # Minus the priority, so that the highest priority comes first.
    sa.Column("rank", sa.SmallInteger, nullable=False, server_default="0"),
    # Null, unless the message is delayed.
    _time("due"),
    # The time from which the message is ready; for a delayed message, as ``due``.
    _time("since", nullable=False, server_default=now()),
    _time("expires"),
    _number("owner"),
    sa.Column("redelivered", sa.Boolean, nullable=False, server_default=sa.false()),
    _text("key", nullable=True),
    # How many processes died with the message alone in hand, in a queue with an order.
    sa.Column("deaths", sa.SmallInteger, nullable=False, server_default="0"),
    _text("meta", server_default="{}"),
    sa.Column("body", sa.LargeBinary, nullable=False),
    _types(
        queue="'text'",
        rank=_WHOLE,
        due=_MAYBE_NUMBER,
        since=_MAYBE_NUMBER,
        expires=_MAYBE_NUMBER,
        owner="'integer', 'null'",
        key="'text', 'null'",
        deaths=_WHOLE,
    ),
    info=_VACUUM,
)
#: The columns from ``message_id`` to ``size`` are made from ``meta`` and ``body``, so
#: that dead letters can be searched and grouped without reading these.
DEAD = _table(
    "dead",
    _number("id", primary_key=True),
    _text("queue"),
    _time("died_at", nullable=False, server_default=now()),
    # The time from which the dead letter is deleted.
    _time("until", nullable=False),
    sa.Column("rank", sa.SmallInteger, nullable=False, server_default="0"),
    _text("key", nullable=True),
    # The first 200 characters.
    _text("message_id", nullable=True),
    _text("consumer", nullable=True),
    # The error's class, and the place in the code where it was raised.
    _text("error", nullable=True),
    _text("place", nullable=True),
    # The error and the reason, case-folded.
    _text("search", server_default=""),
    # Bytes of ``meta`` and ``body``.
    sa.Column("size", sa.Integer, nullable=False, server_default="0"),
    _text("meta"),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
#: One row for each version that the tables have had. All rows have the same random
#: name of the database. Of two processes that upgrade at the same time, the second one
#: cannot add its row.
SCHEMA_VERSION = _table(
    "version",
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    _text("database_id"),
)

M, D, L = MESSAGE.c, DEAD.c, LINK.c


class _covering_columns(FunctionElement[t.Any]):
    """More columns of an index, of which PostgreSQL gets only the first.

    SQLite counts and searches in the index alone if it has all columns of the query,
    also those of the index's own condition. PostgreSQL knows that condition, stores
    large values outside of the table, and limits the size of an index entry.
    """

    inherit_cache = True


@compiles(_covering_columns, "postgresql")
def _compile_covering_for_postgresql(
    element: _covering_columns, compiler: t.Any, **options: t.Any
) -> str:
    first, *_ = element.clauses
    return str(compiler.process(first, **options))


@compiles(_covering_columns, "sqlite")
def _compile_covering_for_sqlite(
    element: _covering_columns, compiler: t.Any, **options: t.Any
) -> str:
    return str(compiler.process(element.clauses, **options))


def _index(
    name: str,
    *columns: sa.ColumnElement[t.Any],
    when: sa.ColumnElement[bool] | None = None,
) -> None:
    sa.Index(f"qconsume_{name}", *columns, postgresql_where=when, sqlite_where=when)


IS_READY = M.owner.is_(None) & M.due.is_(None)

_index(
    "message_ready",
    M.queue,
    M.rank,
    _covering_columns(M.id, M.owner, M.due),
    when=IS_READY,
)
_index("message_due", M.queue, M.due, when=M.due.is_not(None))
_index("message_owner", M.owner, when=M.owner.is_not(None))
_index("message_key", M.queue, M.key, M.id, when=M.key.is_not(None))
_index("message_redelivered", M.queue, M.id, when=M.redelivered)
_index("message_expires", M.expires, when=M.expires.is_not(None))
_index(
    "dead_queue", D.queue, D.id, _covering_columns(D.until, D.died_at, D.size, D.search)
)
_index("dead_until", D.until)
_index("dead_message", D.message_id, when=D.message_id.is_not(None))
_index("dead_error", D.queue, D.error, D.place, D.died_at)
