"""Servers that are killed, frozen or cut off, and connections that end."""

from __future__ import annotations

import os
import threading
import time
import typing as t
from collections.abc import Callable
from collections.abc import Iterator

import gevent
import psutil
import pytest
import sqlalchemy as sa

from flask_qconsume.broker.publish_request import AnswerLost
from flask_qconsume.brokers.sql.database import Step
from flask_qconsume.brokers.sql.postgresql.postgres_database import PostgresDatabase
from flask_qconsume.brokers.sql.postgresql.session import check_version
from flask_qconsume.errors import BrokerUnavailable
from flask_qconsume.errors import UnsupportedByBroker
from flask_qconsume.native_threads import NativeThread
from tests.faults.proxy import Proxy
from tests.servers.postgresql import Database
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import PostgreSQLPair

from ....waiting import spend
from ....waiting import wait_for
from ..tools import SqlQueue
from ..tools import bodies

Open = Callable[..., PostgresDatabase]
OpenQueue = Callable[..., SqlQueue]

_ONE = sa.text("SELECT 1")
_PID = sa.text("SELECT pg_backend_pid()")
_SLEEP = sa.text("SELECT pg_sleep(60)")

#: Seconds that a call may take beyond its limit, on a busy machine.
_GRACE = 4.0


def get_pid(database: PostgresDatabase) -> int:
    return int(database.read_one(_PID)[0])


def fail_in_time(call: Callable[[], object], seconds: float) -> BrokerUnavailable:
    """Assert that a call fails, about after so many seconds; return its error."""
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable) as failed:
        call()
    assert time.monotonic() - started < seconds + _GRACE
    return failed.value


@pytest.fixture
def proxy(postgresql: PostgreSQL) -> Iterator[Proxy]:
    with Proxy(postgresql.port) as started:
        yield started


@pytest.fixture
def behind_proxy(
    proxy: Proxy, postgresql_database: Database, open_database: Open
) -> PostgresDatabase:
    url = postgresql_database.url.replace(
        f":{postgresql_database.server.port}/", f":{proxy.port}/"
    )
    return open_database(url)


def test_a_connection_that_was_ended_while_idle_is_replaced(
    postgresql_database: Database, database: PostgresDatabase
) -> None:
    before = get_pid(database)
    postgresql_database.terminate_connections()
    wait_for(lambda: not _is_connected(postgresql_database, before))
    assert get_pid(database) != before


def test_a_statement_whose_connection_ends_is_in_doubt_if_it_commits(
    postgresql_database: Database, database: PostgresDatabase
) -> None:
    failed = _fail_in_thread(lambda: database.write([Step(_SLEEP)]))
    _await_sleep(postgresql_database)
    postgresql_database.terminate_connections()
    assert isinstance(failed(), AnswerLost)
    failed = _fail_in_thread(lambda: database.write([Step(_SLEEP), Step(_ONE)]))
    _await_sleep(postgresql_database)
    postgresql_database.terminate_connections()
    assert type(failed()) is BrokerUnavailable
    assert database.read(_ONE) == [(1,)]


def test_a_server_that_was_restarted_is_found_again(
    own_postgresql_database: Database, open_queue: OpenQueue
) -> None:
    queue = open_queue(own_postgresql_database.url)
    queue.publish(1)
    server = own_postgresql_database.server
    server.kill()
    fail_in_time(lambda: queue.broker.depth("billing"), 1)
    server.start()
    queue.publish(2)
    assert bodies(queue.take(queue.link(), 2)) == [b"1", b"2"]


def test_a_frozen_server_holds_no_caller_beyond_the_limit(
    own_postgresql_database: Database, open_database: Open
) -> None:
    database = open_database(own_postgresql_database.url)
    database.read(_ONE)
    server = own_postgresql_database.server
    server.freeze()
    try:
        fail_in_time(lambda: database.read(_ONE, timeout=0.5), 0.5)  # Connected.
        fail_in_time(lambda: database.read(_ONE, timeout=0.5), 0.5)  # Connecting.
        lost = fail_in_time(lambda: database.write([Step(_ONE)], timeout=0.5), 0.5)
        assert type(lost) is BrokerUnavailable  # It was not sent.
    finally:
        server.thaw()
    assert database.read(_ONE) == [(1,)]


def test_a_half_open_connection_holds_no_caller_beyond_the_limit(
    proxy: Proxy, behind_proxy: PostgresDatabase
) -> None:
    behind_proxy.read(_ONE)
    proxy.swallow()
    lost = fail_in_time(lambda: behind_proxy.write([Step(_ONE)], timeout=0.5), 0.5)
    assert isinstance(lost, AnswerLost)
    proxy.mend()
    assert behind_proxy.read(_ONE) == [(1,)]


@pytest.mark.parametrize("reset", [True, False])
def test_a_connection_that_is_cut_is_replaced(
    proxy: Proxy, behind_proxy: PostgresDatabase, reset: bool
) -> None:
    before = get_pid(behind_proxy)
    proxy.cut(reset=reset)
    wait_for(lambda: proxy.state()["clients"] == 0)
    assert get_pid(behind_proxy) != before


def test_a_close_ends_all_calls_at_once(
    postgresql_database: Database, database: PostgresDatabase
) -> None:
    failed = _fail_in_thread(lambda: database.read(_SLEEP))
    _await_sleep(postgresql_database)
    database.close()
    fail_in_time(lambda: _raise(failed()), 0.1)
    # The server notices it, too: nothing is left of the call.
    wait_for(lambda: not _sleeps(postgresql_database), 20)


def test_a_call_that_is_killed_takes_its_connection_with_it(
    postgresql_url: str, open_database: Open
) -> None:
    database = open_database(postgresql_url, pool_size=1)
    before = get_pid(database)
    with gevent.Timeout(0.2, False):
        database.read(_SLEEP)
    assert get_pid(database) != before
    killed = gevent.spawn(database.read, _SLEEP)
    gevent.sleep(0)
    killed.kill()
    assert database.read(_ONE) == [(1,)]


def test_a_caller_waits_for_a_connection_up_to_its_limit(
    postgresql_database: Database, open_database: Open
) -> None:
    database = open_database(postgresql_database.url, pool_size=1)
    failed = _fail_in_thread(lambda: database.read(_SLEEP))
    _await_sleep(postgresql_database)
    error = fail_in_time(lambda: database.read(_ONE, timeout=0.2), 0.2)
    assert "All 1 connections of this process" in str(error)
    database.close()
    failed()


def test_native_threads_wait_for_the_database_and_the_hub_goes_on(
    postgresql_url: str, open_database: Open
) -> None:
    """A thread that gevent has not patched has an event loop of its own."""
    rows: list[t.Any] = []

    def read() -> None:
        rows.extend(open_database(postgresql_url, pool_size=2).read(_ONE))

    thread = NativeThread(read, "plain").start()
    assert thread.join(20)
    assert (rows, thread.error) == ([(1,)], None)


def test_a_query_leaves_other_greenlets_their_turns(
    database: PostgresDatabase,
) -> None:
    turns = []
    query = gevent.spawn(database.read, sa.text("SELECT pg_sleep(0.3)"))
    while not query.dead:
        turns.append(spend(0.01))
    assert len(turns) > 3


@pytest.mark.process
def test_a_forked_child_opens_connections_of_its_own(
    postgresql_url: str, open_database: Open
) -> None:
    database = open_database(postgresql_url, pool_size=1)
    before = get_pid(database)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        text = b"failed"
        try:
            text = str(get_pid(database)).encode()
            database.close()
        finally:
            os.write(writing, text)
            os._exit(0)
    text = os.read(reading, 100).decode()
    wait_for(lambda: not psutil.pid_exists(child) or os.waitpid(child, os.WNOHANG)[0])
    assert text.isdecimal() and int(text) != before
    assert get_pid(database) == before
    os.close(reading)
    os.close(writing)


def test_a_standby_is_refused_until_it_is_promoted(
    postgresql_pair: PostgreSQLPair, open_queue: OpenQueue
) -> None:
    with postgresql_pair.database() as database:
        queue = open_queue(postgresql_pair.standby.url_of(database.name))
        error = fail_in_time(queue.broker.declare, 5)
        assert "This PostgreSQL is a standby" in str(error)
        assert "target_session_attrs=read-write" in str(error)
        postgresql_pair.fail_over()
        again = open_queue(database.url)
        again.publish(1)
        assert bodies(again.take(again.link(), 1)) == [b"1"]


def test_a_primary_that_becomes_read_only_is_left(
    postgresql_database: Database, database: PostgresDatabase
) -> None:
    before = get_pid(database)
    write = Step(sa.text("CREATE TABLE x (y int)"))
    with pytest.raises(BrokerUnavailable, match="PostgreSQL can only be read"):
        database.write([Step(sa.text("SET TRANSACTION READ ONLY")), write])
    assert get_pid(database) != before


def test_a_transaction_that_meets_another_one_is_repeated(
    postgresql_database: Database, database: PostgresDatabase
) -> None:
    postgresql_database.execute("CREATE TABLE pair AS SELECT 1 AS a UNION SELECT 2")
    update = sa.text("UPDATE pair SET a = a WHERE a = :a")

    def swap(a: int, b: int) -> None:
        pause = Step(sa.text("SELECT pg_sleep(0.3)"))
        for _ in range(2):
            database.write([Step(update, {"a": a}), pause, Step(update, {"a": b})])

    both = [gevent.spawn(swap, 1, 2), gevent.spawn(swap, 2, 1)]
    gevent.joinall(both, timeout=60, raise_error=True)
    assert all(each.successful() for each in both)
    count = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    wait_for(lambda: postgresql_database.execute(count)[0][0])


@pytest.mark.parametrize(("version", "fits"), [(140_000, True), (130_020, False)])
def test_an_old_server_is_refused(version: int, fits: bool) -> None:
    if fits:
        assert check_version(version) is None
        return
    with pytest.raises(UnsupportedByBroker, match="is PostgreSQL 13, and the lowest"):
        check_version(version)


def _fail_in_thread(call: Callable[[], object]) -> Callable[[], BaseException]:
    """Start a call that is to fail; the function returned waits for its error."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def get_error() -> BaseException:
        thread.join(20)
        return errors[0]

    return get_error


def _raise(error: BaseException) -> None:
    raise error


def _sleeps(database: Database) -> bool:
    found = database.execute(
        "SELECT 1 FROM pg_stat_activity WHERE state = 'active'"
        " AND query LIKE '%%pg_sleep(60)' AND pid <> pg_backend_pid()"
    )
    return bool(found)


def _await_sleep(database: Database) -> None:
    wait_for(lambda: _sleeps(database))


def _is_connected(database: Database, pid: int) -> bool:
    found = database.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", pid)
    return bool(found)
