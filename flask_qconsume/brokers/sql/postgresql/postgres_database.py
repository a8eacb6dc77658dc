"""PostgreSQL, through SQLAlchemy's pool and psycopg, which gevent makes cooperative."""

from __future__ import annotations

import contextlib
import re
import typing as t
from collections.abc import Mapping
from collections.abc import Sequence

import sqlalchemy as sa

from ....errors import BrokerError
from ....errors import BrokerRefused
from ....errors import BrokerUnavailable
from ....errors import TopologyMismatch
from ....first_use import PerProcess
from ..database import CALL_TIMEOUT_SECONDS
from ..database import Channel
from ..database import Database
from ..database import Done
from ..database import Insert
from ..database import Listen
from ..database import PollingChannel
from ..database import Step
from ..schema import IS_READY
from ..schema import MESSAGE
from ..schema import M
from ..schema import now
from ..statements import CLAIMED_COLUMNS

_SCHEME = re.compile(r"^postgres(ql)?(\+psycopg)?(?=://)")

_picked = (
    sa.select(M.id)
    .where(M.queue == sa.bindparam("queue_", type_=sa.Text()), IS_READY)
    .order_by(M.rank, M.id)
    .limit(sa.bindparam("n", type_=sa.Integer()))
    .with_for_update(skip_locked=True)
)
#: Parameters: queue_, n, me. An array keeps the limit and the plan apart from those of
#: the update.
_CLAIM = (
    sa.update(MESSAGE)
    .where(M.id == sa.any_(sa.func.array(_picked.scalar_subquery())))
    .values(owner=sa.bindparam("me", type_=sa.BigInteger()))
    .returning(*CLAIMED_COLUMNS)
)

#: Names that the search path finds.
_FIND_NAMES = sa.text(
    "WITH found AS (SELECT oid, relname, relkind FROM pg_class"
    " WHERE relname LIKE 'qconsume\\_%' AND pg_table_is_visible(oid))"
    " SELECT relname::text FROM found UNION"
    " SELECT relname || '.' || attname FROM found JOIN pg_attribute ON attrelid = oid"
    " WHERE relkind <> 'i' AND attnum > 0 AND NOT attisdropped"
)

_delay: t.Any = sa.bindparam("delay", type_=sa.Double())
_expires: t.Any = sa.bindparam("expires", type_=sa.Double())
_INSERT = sa.insert(MESSAGE).values(
    due=now() + _delay,
    since=now() + sa.func.coalesce(_delay, 0.0),
    expires=now() + _expires,
    **{n: sa.bindparam(n) for n in ("queue", "rank", "key", "meta", "body")},
)


class PostgresDatabase(Database):
    """One database of a PostgreSQL server."""

    name = "PostgreSQL"

    def __init__(self, url: str) -> None:
        self._url = _SCHEME.sub("postgresql+psycopg", url)
        self._engine = PerProcess(self._create_engine)

    def write(
        self, steps: Sequence[Step | Insert], timeout: float = CALL_TIMEOUT_SECONDS
    ) -> list[Done]:
        with self._begin() as connection:
            return [_execute(connection, step) for step in steps]

    def read(
        self,
        statement: sa.Executable,
        parameters: Mapping[str, t.Any] | None = None,
        timeout: float = CALL_TIMEOUT_SECONDS,
    ) -> list[Sequence[t.Any]]:
        with self._begin() as connection:
            return list(connection.execute(statement, parameters or {}).all())

    def read_one(
        self,
        statement: sa.Executable,
        parameters: Mapping[str, t.Any] | None = None,
        timeout: float = CALL_TIMEOUT_SECONDS,
    ) -> Sequence[t.Any]:
        return self.read(statement, parameters)[0]

    def claim(self, link: int, queue: str, room: int) -> list[Sequence[t.Any]]:
        rows = self.read(_CLAIM, {"queue_": queue, "n": room, "me": link})
        return sorted(rows, key=lambda row: (row[1], row[0]))

    def find_names(self) -> set[str]:
        return {name for (name,) in self.read(_FIND_NAMES)}

    def lock_declarations(self) -> Sequence[Step]:
        # 'IF NOT EXISTS' does not protect from another session that creates the same.
        return [Step(sa.text("SELECT pg_advisory_xact_lock(hashtext('qconsume'))"))]

    def open_channel(self, listen: Listen) -> Channel:
        return PollingChannel()

    def close(self) -> None:
        engine = self._engine.take()
        if engine is not None:
            engine.dispose()

    def abandon_after_fork(self) -> None:
        self._engine.leave_to_parent()

    def _create_engine(self) -> sa.Engine:
        return sa.create_engine(self._url, pool_size=5, max_overflow=0)

    @contextlib.contextmanager
    def _begin(self) -> t.Iterator[sa.Connection]:
        try:
            with self._engine.get().begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise _translate(error) from error


def _translate(error: sa.exc.SQLAlchemyError) -> BrokerError:
    text = str(getattr(error, "orig", error)).strip().rstrip(".")
    code = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    if code == "42P01":
        return TopologyMismatch(f"PostgreSQL: {text}. Run 'flask qconsume declare'.")
    if code.startswith(("28", "42501", "3D")):
        return BrokerRefused(f"PostgreSQL refused us: {text}.")
    return BrokerUnavailable(f"There is no working connection to PostgreSQL: {text}.")


def _execute(connection: sa.Connection, step: Step | Insert) -> Done:
    if isinstance(step, Insert):
        connection.execute(_INSERT, [each._asdict() for each in step.messages])
        return Done(len(step.messages))
    result = connection.execute(step.statement, dict(step.parameters))
    row = result.first() if result.returns_rows else None
    return Done(result.rowcount, row)
