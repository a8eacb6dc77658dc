"""Statements that only PostgreSQL has."""

from __future__ import annotations

import typing as t

import sqlalchemy as sa

from ..schema import IS_READY
from ..schema import MESSAGE
from ..schema import M
from ..statements import CLAIMED_COLUMNS

#: Seconds since the statement began; in 'RETURNING', the search has ended.
_elapsed: sa.ColumnElement[float] = sa.literal_column(
    "extract(epoch from clock_timestamp() - statement_timestamp())::float8"
)


def _claim(*conditions: sa.ColumnElement[bool]) -> sa.Update:
    picked = (
        sa.select(M.id)
        .where(
            M.queue == sa.bindparam("queue_", type_=sa.Text()), IS_READY, *conditions
        )
        .order_by(M.rank, M.id)
        .limit(sa.bindparam("n", type_=sa.Integer()))
        .with_for_update(skip_locked=True)
    )
    # The array separates the limit and the plan of the query from those of the update.
    # A join would keep a plan that was made for a nearly empty table.
    return t.cast(
        sa.Update,
        sa.update(MESSAGE)
        .where(M.id == sa.any_(sa.func.array(picked.scalar_subquery())))
        .values(owner=sa.bindparam("me", type_=sa.BigInteger()))
        .returning(*CLAIMED_COLUMNS, _elapsed),
    )


#: Parameters: queue_, n, me. Rows: ``CLAIMED_COLUMNS``, and the seconds of searching.
CLAIM = _claim()
#: Parameters: those of ``CLAIM``, and rank_ and id_ of the first message to read.
CLAIM_FROM = _claim(
    sa.tuple_(M.rank, M.id)
    >= sa.tuple_(
        sa.bindparam("rank_", type_=sa.SmallInteger()),
        sa.bindparam("id_", type_=sa.BigInteger()),
    )
)

#: Parameters: a list for each column. Arrays are some 1.6 times as fast as a row of
#: parameters for each message. They are in binary form (``%(..)b``), since psycopg
#: escapes each quote of a text array in Python: 500 messages take 9.8 ms of processor
#: time in binary form, and 23.4 ms in text form.
INSERT: t.Final = """
    INSERT INTO qconsume_message (queue, rank, due, since, expires, key, meta, body)
    SELECT queue, rank, now.s + delay, now.s + coalesce(delay, 0), now.s + expires,
        key, meta, body
    FROM unnest(
            %(queue)b::text[], %(rank)b::smallint[], %(delay)b::float8[],
            %(expires)b::float8[], %(key)b::text[], %(meta)b::text[], %(body)b::bytea[]
        ) AS new (queue, rank, delay, expires, key, meta, body),
        (SELECT extract(epoch FROM clock_timestamp())::float8 AS s) AS now
"""

#: Names in the schemas of the search path.
FIND_NAMES = sa.text(
    "WITH found AS (SELECT oid, relname, relkind FROM pg_class"
    " WHERE relname LIKE 'qconsume\\_%' AND pg_table_is_visible(oid))"
    " SELECT relname::text FROM found UNION"
    " SELECT relname || '.' || attname FROM found JOIN pg_attribute ON attrelid = oid"
    " WHERE relkind <> 'i' AND attnum > 0 AND NOT attisdropped"
)

#: 'IF NOT EXISTS' does not protect from another session that creates the same.
LOCK_DECLARATIONS = sa.text("SELECT pg_advisory_xact_lock(hashtext('qconsume'))")

#: Parameters: payload. Does not wait for the disk, since an announcement may be lost.
NOTIFY = sa.text(
    "SELECT set_config('synchronous_commit', 'off', true),"
    " pg_notify('qconsume', :payload)"
)

#: Warnings by the name of the setting that is off.
CAVEATS: t.Mapping[str, str] = {
    "synchronous_commit": (
        "PostgreSQL confirms before it has written ('synchronous_commit' is off): if"
        " its machine stops, messages of the last second may be lost."
    ),
    "fsync": (
        "PostgreSQL does not wait for its disk ('fsync' is off): if its machine stops,"
        " the database may be lost."
    ),
    "full_page_writes": (
        "PostgreSQL relies on whole pages reaching its disk ('full_page_writes' is"
        " off): if its machine stops, the database may be damaged."
    ),
}
FIND_UNSAFE_SETTINGS = sa.text(
    "SELECT name FROM unnest(CAST(ARRAY['synchronous_commit', 'fsync',"
    " 'full_page_writes'] AS text[])) AS name WHERE current_setting(name) = 'off'"
)
