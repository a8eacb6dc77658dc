"""Errors of the server: what they become, and what their texts advise."""

from __future__ import annotations

import contextlib
import typing as t
from collections.abc import Callable
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa

from flask_qconsume.broker.publish_request import AnswerLost
from flask_qconsume.brokers.sql.database import Step
from flask_qconsume.brokers.sql.postgresql.errors import translate_error
from flask_qconsume.brokers.sql.postgresql.postgres_database import PostgresDatabase
from flask_qconsume.errors import BrokerError
from flask_qconsume.errors import BrokerRefused
from flask_qconsume.errors import BrokerUnavailable
from flask_qconsume.errors import PublishRefused
from flask_qconsume.errors import TopologyMismatch
from flask_qconsume.errors import UnsupportedByBroker
from tests.servers.ports import free_port
from tests.servers.postgresql import Database

from ..tools import SqlQueue
from ..tools import bodies

Open = Callable[..., PostgresDatabase]
OpenQueue = Callable[..., SqlQueue]

_ONE = sa.text("SELECT 1")


@contextlib.contextmanager
def user(database: Database, options: str = "") -> Iterator[str]:
    """Create a user without permissions for a block; return the URL to log in with."""
    name = f"user_{database.name}"
    database.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'topsecret' {options}")
    try:
        yield database.url.replace("guest:guest", f"{name}:topsecret")
    finally:
        database.terminate_connections()
        database.execute(f"DROP OWNED BY {name}")
        database.execute(f"DROP ROLE {name}")


def fail(call: Callable[[], object]) -> BrokerError:
    with pytest.raises(BrokerError) as failed:
        call()
    chain: BaseException | None = failed.value
    while chain is not None:
        assert "topsecret" not in str(chain)
        chain = chain.__cause__ or chain.__context__
    return failed.value


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        ("guest:guest", "guest:topsecret", "Look at the user and the password"),
        ("guest:guest", "nobody:topsecret", "Look at the user and the password"),
        ("guest:guest", "guest", "Look at the user and the password"),
        ("/test_", "/missing_", "CREATE DATABASE"),
    ],
)
def test_a_login_that_is_wrong_is_refused(
    postgresql_url: str, open_database: Open, old: str, new: str, advice: str
) -> None:
    database = open_database(postgresql_url.replace(old, new))
    error = fail(lambda: database.read(_ONE))
    assert isinstance(error, BrokerRefused)
    assert advice in str(error)


def test_a_server_that_is_not_there_is_unavailable(open_database: Open) -> None:
    database = open_database(f"postgresql://a:topsecret@127.0.0.1:{free_port()}/b")
    error = fail(lambda: database.read(_ONE))
    assert isinstance(error, BrokerUnavailable)
    assert "Connection refused" in str(error)


def test_a_host_without_an_address_is_unavailable(open_database: Open) -> None:
    database = open_database("postgresql://a:topsecret@queues.invalid/b")
    error = fail(lambda: database.read(_ONE))
    assert isinstance(error, BrokerUnavailable)
    assert "no address of 'queues.invalid' is known" in str(error)


def test_the_second_of_several_hosts_is_taken(
    postgresql_url: str, open_database: Open
) -> None:
    several = postgresql_url.replace("@", f"@127.0.0.1:{free_port()},")
    assert open_database(several).read(_ONE) == [(1,)]


def test_missing_permissions_name_the_grants(
    postgresql_database: Database, open_queue: OpenQueue
) -> None:
    open_queue(postgresql_database.url).broker.declare()
    with user(postgresql_database) as url:
        queue = open_queue(url, declare="never")
        error = fail(lambda: queue.link())
        assert isinstance(error, BrokerRefused)
        assert "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES" in str(error)
        name = f"user_{postgresql_database.name}"
        for kind, rights in [
            ("TABLES", "SELECT, INSERT, UPDATE, DELETE"),
            ("SEQUENCES", "USAGE"),
        ]:
            postgresql_database.execute(
                f"GRANT {rights} ON ALL {kind} IN SCHEMA public TO {name}"
            )
        queue.publish(1)
        assert bodies(queue.take(queue.link(), 1)) == [b"1"]
        queue.close()


def test_a_user_who_may_not_create_tables_is_told_so(
    postgresql_database: Database, open_queue: OpenQueue
) -> None:
    with user(postgresql_database) as url:
        error = fail(open_queue(url).broker.declare)
        assert isinstance(error, BrokerRefused)
        assert "GRANT CREATE ON SCHEMA" in str(error)


def test_too_many_connections_are_an_outage(
    postgresql_database: Database, open_database: Open
) -> None:
    with user(postgresql_database, "CONNECTION LIMIT 1") as url:
        first, second = open_database(url), open_database(url)
        assert first.read(_ONE) == [(1,)]
        error = fail(lambda: second.read(_ONE))
        assert isinstance(error, BrokerUnavailable)
        assert "'max_connections'" in str(error)
        first.close()


def test_tables_are_in_the_schema_of_the_option(
    postgresql_database: Database, open_queue: OpenQueue
) -> None:
    queue = open_queue(postgresql_database.url, transport_options={"schema": "queues"})
    error = fail(queue.broker.declare)
    assert isinstance(error, BrokerRefused)
    assert "CREATE SCHEMA" in str(error)
    postgresql_database.execute("CREATE SCHEMA queues")
    queue.publish(1)
    count = "SELECT count(*) FROM queues.qconsume_message"
    assert postgresql_database.execute(count) == [(1,)]


def test_missing_tables_are_a_mismatch(database: PostgresDatabase) -> None:
    error = fail(lambda: database.claim(1, "billing", 1))
    assert isinstance(error, TopologyMismatch)
    assert "flask qconsume declare" in str(error)


def test_locked_tables_are_an_outage_that_ends(
    postgresql_database: Database, open_queue: OpenQueue
) -> None:
    queue = open_queue(postgresql_database.url)
    queue.publish(1)
    with psycopg.connect(postgresql_database.url) as operator:
        operator.execute("LOCK TABLE qconsume_message")
        read = queue.broker._shared.database.read
        count = sa.text("SELECT count(*) FROM qconsume_message")
        error = fail(lambda: read(count, timeout=0.3))
        assert isinstance(error, BrokerUnavailable)
    assert read(count) == [(1,)]


def test_a_lock_limit_of_the_server_names_where_to_look(
    database: PostgresDatabase, postgresql_database: Database
) -> None:
    postgresql_database.execute("CREATE TABLE x (y int)")
    with psycopg.connect(postgresql_database.url) as operator:
        operator.execute("LOCK TABLE x")
        limit = Step(sa.text("SET LOCAL lock_timeout = '50ms'"))
        error = fail(lambda: database.write([limit, Step(sa.text("DELETE FROM x"))]))
    assert isinstance(error, BrokerUnavailable)
    assert "pg_locks" in str(error)


def test_a_full_disk_loses_nothing(
    own_postgresql_database: Database, open_queue: OpenQueue
) -> None:
    queue = open_queue(own_postgresql_database.url)
    queue.publish("kept")
    with own_postgresql_database.full_disk():
        write = queue.broker._shared.database.write
        grow = sa.text("CREATE TABLE big AS SELECT repeat('x', 8000) AS x")
        error = fail(lambda: write([Step(grow)]))
        assert isinstance(error, BrokerUnavailable)
        assert "PostgreSQL has no room" in str(error)
    assert bodies(queue.take(queue.link(), 1)) == [b'"kept"']


def test_a_server_that_confirms_too_early_is_a_caveat(
    postgresql_database: Database, open_database: Open
) -> None:
    assert open_database(postgresql_database.url).caveats() == []
    postgresql_database.execute(
        f"ALTER DATABASE {postgresql_database.name} SET synchronous_commit = off"
    )
    (caveat,) = open_database(postgresql_database.url).caveats()
    assert "'synchronous_commit' is off" in caveat


class Answer(psycopg.OperationalError):
    """An error of a server, with its code."""

    def __init__(self, code: str | None, text: str) -> None:
        super().__init__(text)
        self.sqlstate = code


@pytest.mark.parametrize(
    ("code", "text", "kind", "advice"),
    [
        (None, "FATAL:  the database system is starting up", BrokerUnavailable, ""),
        ("57P03", "the database system is shutting down", BrokerUnavailable, ""),
        (
            None,
            'FATAL:  no pg_hba.conf entry for host "::1"',
            BrokerRefused,
            "pg_hba.conf",
        ),
        (None, "server closed the connection unexpectedly", BrokerUnavailable, ""),
        ("42704", "unrecognized parameter", UnsupportedByBroker, "PostgreSQL 14"),
        (
            "26000",
            'prepared statement "_pg3_0" does not exist',
            BrokerRefused,
            "{'transaction_pooling': True}",
        ),
        ("22003", "value out of range", PublishRefused, "refused the message"),
        ("23514", "violates check constraint", PublishRefused, "refused the message"),
        ("2F002", "modifying data not permitted", BrokerError, "answered with"),
    ],
)
def test_an_error_says_what_to_do(
    code: str | None, text: str, kind: type[BrokerError], advice: str
) -> None:
    error = translate_error(Answer(code, f"{text}\nDETAIL: more"))
    assert type(error) is kind
    assert text in str(error)
    assert advice in str(error)
    assert "DETAIL" not in str(error)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (None, AnswerLost),
        ("57P01", AnswerLost),
        ("08006", AnswerLost),
        ("57014", BrokerUnavailable),
        ("53100", BrokerUnavailable),
    ],
)
def test_only_an_outage_puts_a_commit_in_doubt(
    code: str | None, kind: type[t.Any]
) -> None:
    assert type(translate_error(Answer(code, "x"), committing=True)) is kind
