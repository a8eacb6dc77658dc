"""A prepared SQLite engine: greenlets write at the same time, and the hub runs on."""

from __future__ import annotations

import logging
import pathlib
import sqlite3
import sys
import time
import typing as t

import gevent
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from flask_qconsume import ConfigurationError
from flask_qconsume.integrations.sqlalchemy import is_prepared
from flask_qconsume.integrations.sqlalchemy import prepare_engine

from ..waiting import spend
from ..waiting import wait_for
from .engines import Base
from .engines import Engines
from .engines import HubGap
from .engines import Tea
from .engines import count
from .engines import has_begun
from .engines import load

#: Seconds for which a greenlet keeps the write lock.
HELD = 0.3

#: Seconds for which the hub may stand still meanwhile, also on a busy machine. The
#: driver's own wait would be 5.
MOST_GAP = 1.0


def write_and_hold(engine: sa.Engine, id: int, seconds: float = HELD) -> None:
    with Session(engine) as session:
        session.add(Tea(id=id))
        session.flush()
        spend(seconds)
        session.commit()


def run_together(*calls: t.Callable[[], object]) -> None:
    """Run functions in greenlets, and raise at their end what one of them raised."""
    greenlets = [gevent.spawn(call) for call in calls]
    gevent.joinall(greenlets)
    for greenlet in greenlets:
        greenlet.get()


# -- locks -----------------------------------------------------------------------------


def test_two_greenlets_write_and_the_hub_runs_on(engines: Engines) -> None:
    engine = engines.prepare()
    with HubGap() as gap:
        run_together(*[lambda id=id: write_and_hold(engine, id) for id in (1, 2)])
    assert count(engine) == 2
    assert gap.seconds < MOST_GAP


def test_without_it_the_hub_stands_still_and_a_write_fails(engines: Engines) -> None:
    engine = engines.make(connect_args={"timeout": 1})
    with HubGap() as gap, pytest.raises(OperationalError, match="is locked"):
        run_together(*[lambda id=id: write_and_hold(engine, id) for id in (1, 2)])
    assert gap.seconds >= 0.9


def test_a_transaction_that_reads_first_waits_and_writes(engines: Engines) -> None:
    """The usual handler: it loads a row, asks a service, and changes the row."""
    engine = engines.prepare()
    with Session(engine) as session:
        session.add_all(Tea(id=id) for id in range(10))
        session.commit()

    def handle(id: int) -> None:
        for _ in range(5):
            with Session(engine) as session:
                tea = load(session, id)
                spend(0.005)
                tea.price += 1
                session.commit()

    run_together(*[lambda id=id: handle(id) for id in range(10)])

    with Session(engine) as session:
        assert session.scalars(sa.select(Tea.price)).all() == [5] * 10


def test_reads_see_what_is_committed_meanwhile(engines: Engines) -> None:
    engine = engines.prepare()
    with Session(engine) as reader, Session(engine) as writer:
        assert reader.get(Tea, 1) is None
        writer.add(Tea(id=1))
        writer.flush()
        assert reader.get(Tea, 1) is None
        writer.commit()
        assert reader.get(Tea, 1) is not None
        assert not has_begun(reader)


@pytest.mark.parametrize(
    "read",
    [
        lambda session: session.get(Tea, 1, with_for_update=True),
        lambda session: session.scalars(sa.select(Tea).with_for_update()).all(),
        lambda session: session.query(Tea).with_for_update().all(),
        lambda session: session.execute(sa.select(Tea.id).with_for_update()).all(),
    ],
)
def test_a_read_for_update_takes_the_lock(
    engines: Engines, read: t.Callable[[Session], object]
) -> None:
    engine = engines.prepare(timeout=0)
    with Session(engine) as session, Session(engine) as other:
        read(session)
        assert has_begun(session)
        other.add(Tea(id=2))
        with pytest.raises(OperationalError, match="is locked"):
            other.flush()


def test_no_update_is_lost_by_reads_for_update(engines: Engines) -> None:
    engine = engines.prepare()
    with Session(engine) as session:
        session.add(Tea(id=1))
        session.commit()

    def handle() -> None:
        for _ in range(5):
            with Session(engine) as session:
                tea = load(session, 1, with_for_update=True)
                spend(0.001)
                tea.price += 1
                session.commit()

    run_together(*[handle] * 10)

    with Session(engine) as session:
        assert load(session, 1).price == 50


# -- transactions ----------------------------------------------------------------------

#: Every way in which SQLAlchemy executes a write.
WRITES: list[t.Callable[[Session], object]] = [
    lambda session: session.add(Tea(id=1)) or session.flush(),
    lambda session: session.add_all([Tea(), Tea()]) or session.flush(),
    lambda session: session.execute(sa.insert(Tea), [{"id": 1}, {"id": 2}]),
    lambda session: session.connection().execute(
        sa.insert(Tea.__table__), [{"id": 1, "price": 1}, {"id": 2, "price": 1}]
    ),
    lambda session: session.execute(sa.text("INSERT INTO tea VALUES (1, 1)")),
    lambda session: session.connection().exec_driver_sql(
        "INSERT INTO tea VALUES (?, ?)", [(1, 1), (2, 2)]
    ),
    lambda session: session.connection().exec_driver_sql(
        "INSERT INTO tea VALUES (1, 1)",
        execution_options={"no_parameters": True},
    ),
    lambda session: session.execute(
        sa.insert(Tea).from_select(
            ["id", "price"],
            sa.select(sa.select(sa.literal(1).label("id"), sa.literal(2)).cte()),
        )
    ),
    lambda session: session.execute(sa.text("CREATE TABLE IF NOT EXISTS t (x)")),
]


@pytest.mark.parametrize("write", WRITES)
def test_every_write_takes_the_lock_first(
    engines: Engines, write: t.Callable[[Session], object]
) -> None:
    engine = engines.prepare()
    statements: list[str] = []
    with Session(engine) as session:
        connection: t.Any = session.connection().connection.dbapi_connection
        connection.set_trace_callback(statements.append)
        write(session)
        connection.set_trace_callback(None)
        assert has_begun(session)
        session.rollback()
    assert statements[0] == "BEGIN IMMEDIATE"
    assert len(statements) > 1
    assert count(engine) == 0


@pytest.mark.parametrize("is_cured", [True, False])
def test_a_savepoint_that_comes_first_ends_with_its_transaction(
    engines: Engines, is_cured: bool
) -> None:
    engine = engines.prepare() if is_cured else engines.make()
    with Session(engine) as session:
        with session.begin_nested():
            session.connection().exec_driver_sql("CREATE TABLE pot (id)")
        visible = sa.inspect(engine).has_table("pot")
        session.rollback()
    assert (visible, sa.inspect(engine).has_table("pot")) == (
        (False, False) if is_cured else (True, True)
    )


def test_a_savepoint_that_is_rolled_back_takes_nothing_else_along(
    engines: Engines,
) -> None:
    engine = engines.prepare()
    with Session(engine) as session:
        session.add(Tea(id=1))
        nested = session.begin_nested()
        session.add(Tea(id=2))
        session.flush()
        nested.rollback()
        session.commit()
        assert session.scalars(sa.select(Tea.id)).all() == [1]


def test_a_begin_of_the_apps_own_is_left_alone(engines: Engines) -> None:
    engine = engines.prepare()
    with Session(engine) as reader, Session(engine) as writer:
        reader.execute(sa.text("BEGIN"))
        assert reader.scalars(sa.select(Tea.id)).all() == []
        writer.add(Tea(id=1))
        writer.commit()
        assert reader.scalars(sa.select(Tea.id)).all() == []  # Of one snapshot.
        reader.rollback()
        reader.execute(sa.text("BEGIN IMMEDIATE"))
        assert reader.scalars(sa.select(Tea.id)).all() == [1]


def test_autocommit_waits_and_commits_each_statement(engines: Engines) -> None:
    engine = engines.prepare()
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    assert is_prepared(autocommit)

    def write() -> None:
        with autocommit.connect() as connection:
            connection.execute(sa.insert(Tea).values(id=2))
            assert count(engine) == 2

    with HubGap() as gap:
        run_together(lambda: write_and_hold(engine, 1), write)
    assert gap.seconds < MOST_GAP


# -- errors ----------------------------------------------------------------------------


def test_the_wait_has_an_end_and_its_error_says_what_to_do(engines: Engines) -> None:
    engine = engines.prepare(timeout=0.05)
    with Session(engine) as holder, Session(engine) as session:
        holder.add(Tea(id=1))
        holder.flush()
        session.add(Tea(id=2))
        begun = time.monotonic()
        with pytest.raises(OperationalError, match="Waited 0.05 s") as caught:
            session.flush()
        assert time.monotonic() - begun >= 0.05
        assert "Commit soon after the first write" in str(caught.value)


def test_the_wait_is_the_drivers_unless_given(engines: Engines) -> None:
    engine = engines.make(connect_args={"timeout": 0.25})
    prepare_engine(engine)
    with Session(engine) as holder, Session(engine) as session:
        holder.add(Tea(id=1))
        holder.flush()
        session.add(Tea(id=2))
        with pytest.raises(OperationalError, match="Waited 0.25 s"):
            session.flush()


def test_a_write_after_an_outdated_read_fails_at_once(engines: Engines) -> None:
    engine = engines.prepare(timeout=60)
    with Session(engine) as session, Session(engine) as other:
        session.execute(sa.text("BEGIN"))
        session.scalars(sa.select(Tea)).all()
        other.add(Tea(id=1))
        other.commit()
        session.add(Tea(id=2))
        with pytest.raises(OperationalError, match="Waiting cannot help"):
            session.flush()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python tells no error codes")
def test_a_write_beside_an_outdated_open_result_fails_at_once(
    engines: Engines,
) -> None:
    engine = engines.prepare(timeout=60)
    with Session(engine) as session:
        session.add_all([Tea(), Tea()])
        session.commit()
    with engine.connect() as connection, Session(engine) as other:
        result = connection.execute(sa.select(Tea.id))
        result.fetchone()
        other.add(Tea())
        other.commit()
        with pytest.raises(OperationalError, match="a result that is still open"):
            connection.execute(sa.insert(Tea))
        result.close()


def test_other_errors_are_as_ever(engines: Engines) -> None:
    engine = engines.prepare()
    with Session(engine) as session:
        with pytest.raises(OperationalError) as caught:
            session.execute(sa.text("SELECT * FROM pots"))
        assert str(caught.value).startswith("(sqlite3.OperationalError) no such table")


# -- engines ---------------------------------------------------------------------------


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_connections_are_set_up(
    engines: Engines, synchronous: t.Literal["FULL", "NORMAL"]
) -> None:
    engine = engines.prepare(synchronous=synchronous)
    wanted = {
        "journal_mode": "wal",
        "synchronous": {"FULL": 2, "NORMAL": 1}[synchronous],
        "busy_timeout": 0,
        "foreign_keys": 0,
    }
    for _ in range(2):
        with engine.connect() as one, engine.connect() as two:
            for connection in (one, two):
                assert {
                    name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                    for name in wanted
                } == wanted
        engine.dispose()


def test_a_connection_that_is_older_is_set_up(engines: Engines) -> None:
    engine = engines.make()
    with engine.connect() as connection:
        older = connection.connection.dbapi_connection
    prepare_engine(engine)
    with engine.connect() as connection:
        assert connection.connection.dbapi_connection is older
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


@pytest.mark.parametrize("pool", ["NullPool", "StaticPool", "SingletonThreadPool"])
def test_every_pool_is_prepared(engines: Engines, pool: str) -> None:
    engine = engines.make(poolclass=getattr(sa.pool, pool))
    prepare_engine(engine)
    with Session(engine) as session:
        session.add(Tea(id=1))
        session.flush()
        assert has_begun(session)
        session.commit()
    assert count(engine) == 1


@pytest.mark.parametrize("pool", ["StaticPool", "SingletonThreadPool"])
def test_a_database_in_memory_is_prepared(
    engines: Engines, caplog: pytest.LogCaptureFixture, pool: str
) -> None:
    engine = engines.make("sqlite://", poolclass=getattr(sa.pool, pool))
    prepare_engine(engine)
    with Session(engine) as session:
        with session.begin_nested():
            session.add(Tea(id=1))
        session.rollback()
        session.add(Tea(id=2))
        session.commit()
        assert session.scalars(sa.select(Tea.id)).all() == [2]
    assert caplog.messages == []


def test_a_shared_cache_waits_for_locks_of_tables(engines: Engines) -> None:
    url = "sqlite:///file:shared_cache?mode=memory&cache=shared&uri=true"
    engine = engines.make(url, poolclass=sa.pool.QueuePool)
    prepare_engine(engine)
    with HubGap() as gap:
        run_together(
            lambda: write_and_hold(engine, 1),
            lambda: count(engine),
            lambda: write_and_hold(engine, 2, 0),
        )
    assert count(engine) == 2
    assert gap.seconds < MOST_GAP


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there is no 'autocommit'")
@pytest.mark.parametrize("autocommit", [True, False])
def test_the_drivers_autocommit_is_overruled(
    engines: Engines, autocommit: bool
) -> None:
    engine = engines.make(connect_args={"autocommit": autocommit})
    prepare_engine(engine)
    with Session(engine) as session:
        assert not has_begun(session)
        session.add(Tea(id=1))
        session.rollback()
        session.add(Tea(id=2))
        session.flush()
        assert has_begun(session)
        session.commit()
        assert session.scalars(sa.select(Tea.id)).all() == [2]


def test_a_database_that_is_read_only_is_read_with_a_warning(
    engines: Engines, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    engines.make()
    engine = sa.create_engine(f"sqlite:///file:{tmp_path}/shop.db?mode=ro&uri=true")
    engines.made.append(engine)
    prepare_engine(engine)
    with caplog.at_level(logging.WARNING, "flask_qconsume.databases"):
        for _ in range(2):
            assert count(engine) == 0
            engine.dispose()
    (message,) = caplog.messages
    assert "(attempt to write a readonly database)" in message


def test_two_who_switch_the_journal_wait_for_each_other(engines: Engines) -> None:
    engine, other = engines.prepare(), engines.make()
    with other.connect() as connection:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        switching = gevent.spawn(count, engine)
        spend(0.05)
        assert not switching.dead
        connection.rollback()
        wait_for(lambda: switching.dead)
    assert switching.get() == 0


def test_a_switch_of_the_journal_waits_no_longer_than_a_write(engines: Engines) -> None:
    engine, other = engines.prepare(timeout=0.05), engines.make()
    with other.connect() as connection:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        with pytest.raises(OperationalError, match=r"Waited 0\.05 s"):
            count(engine)
        connection.rollback()
    assert count(engine) == 0


def test_a_second_call_changes_nothing(engines: Engines) -> None:
    engine = engines.make()
    assert not is_prepared(engine)
    prepare_engine(engine, synchronous="NORMAL")
    prepare_engine(engine)
    prepare_engine(engine.execution_options(isolation_level="AUTOCOMMIT"))
    assert is_prepared(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
    Base.metadata.drop_all(engine)


def test_other_databases_need_nothing() -> None:
    engine = sa.create_engine("postgresql+psycopg://127.0.0.1/shop")
    assert is_prepared(engine)
    prepare_engine(engine)
    assert list(engine.dialect.dispatch.do_execute) == []


def test_a_connection_is_prepared_if_its_engine_is(engines: Engines) -> None:
    with engines.prepare().connect() as one, engines.make().connect() as other:
        assert is_prepared(one)
        assert not is_prepared(other)


def test_what_cannot_be_prepared_is_refused(engines: Engines) -> None:
    with pytest.raises(ConfigurationError, match=r"such as 'db.engine', and got 'db'"):
        prepare_engine(t.cast(t.Any, "db"))
    engine = sa.create_engine("sqlite+pysqlcipher://:key@/shop.db", module=sqlite3)
    with pytest.raises(ConfigurationError, match="'sqlite.pysqlcipher' is another"):
        prepare_engine(engine)
    wrong: t.Any = "full"
    with pytest.raises(ConfigurationError, match="EXTRA, FULL, NORMAL, OFF, and is"):
        prepare_engine(engines.make(), synchronous=wrong)
