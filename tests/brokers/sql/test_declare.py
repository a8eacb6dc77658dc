"""Tables, queues and bindings: created, completed, upgraded, checked and refused."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import typing as t
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_qconsume import QConsume
from flask_qconsume.brokers.sql import schema
from flask_qconsume.brokers.sql.database import Step
from flask_qconsume.brokers.sql.schema import DEAD
from flask_qconsume.brokers.sql.tables import Tables
from flask_qconsume.brokers.sql.upgrades import UPGRADES
from flask_qconsume.errors import BrokerRefused
from flask_qconsume.errors import TopologyMismatch

from ...cli.commands import invoke
from .tools import SqlQueue
from .tools import execute

OpenQueue = Callable[..., SqlQueue]


def declare(open_queue: OpenQueue, url: str, how: str = "auto") -> SqlQueue:
    queue = open_queue(url, declare=how)
    queue.broker.declare()
    return queue


def read_versions(url: str) -> list[tuple[t.Any, ...]]:
    return execute(url, "SELECT version, database_id FROM qconsume_version ORDER BY 1")


def test_a_second_declaration_changes_nothing(
    database_url: str, open_queue: OpenQueue
) -> None:
    declare(open_queue, database_url)
    before = read_versions(database_url)
    declare(open_queue, database_url)
    assert read_versions(database_url) == before
    ((version, name),) = before
    assert version == schema.VERSION
    assert len(name) >= 32


def test_what_was_dropped_is_named_and_completed(
    database_url: str, open_queue: OpenQueue
) -> None:
    queue = declare(open_queue, database_url)
    queue.publish(1)
    execute(database_url, "DROP INDEX qconsume_message_due")
    execute(database_url, "DROP TABLE qconsume_dead")
    with pytest.raises(TopologyMismatch, match="qconsume_dead', .*message_due'") as e:
        declare(open_queue, database_url, "passive")
    assert "Run 'flask qconsume declare'" in str(e.value)
    declare(open_queue, database_url)
    declare(open_queue, database_url, "passive")
    assert queue.broker.depth(queue.plan.name) == 1


def test_missing_tables_are_an_error_with_the_remedy(
    database_url: str, open_queue: OpenQueue
) -> None:
    with pytest.raises(TopologyMismatch, match="Run 'flask qconsume declare'"):
        declare(open_queue, database_url, "passive")
    unchecked = declare(open_queue, database_url, "never")
    with pytest.raises(TopologyMismatch, match="Run 'flask qconsume declare'"):
        unchecked.link()


def test_a_missing_queue_or_binding_is_named(
    database_url: str, open_queue: OpenQueue
) -> None:
    declare(open_queue, database_url)
    execute(database_url, "DELETE FROM qconsume_binding")
    with pytest.raises(TopologyMismatch, match="'billing' is not bound to .* 'shop'"):
        declare(open_queue, database_url, "passive")
    execute(database_url, "DELETE FROM qconsume_queue")
    with pytest.raises(TopologyMismatch, match="The queue 'billing' is missing"):
        declare(open_queue, database_url, "passive")
    declare(open_queue, database_url)
    declare(open_queue, database_url, "passive")


@pytest.mark.parametrize("how", ["auto", "passive"])
def test_a_foreign_table_of_that_name_is_refused(
    how: str, database_url: str, open_queue: OpenQueue
) -> None:
    execute(database_url, "CREATE TABLE qconsume_message (id int, words text)")
    with pytest.raises(TopologyMismatch, match="'qconsume_message' .* lacks 'queue'"):
        declare(open_queue, database_url, how)
    columns = execute(database_url, "SELECT * FROM qconsume_message")
    assert columns == []
    with pytest.raises(sa.exc.DBAPIError):
        execute(database_url, "SELECT * FROM qconsume_dead")


def test_a_foreign_table_of_versions_is_refused(
    database_url: str, open_queue: OpenQueue
) -> None:
    execute(database_url, "CREATE TABLE qconsume_version (number int)")
    with pytest.raises(TopologyMismatch, match="'qconsume_version' .* 'database_id'"):
        declare(open_queue, database_url)


@pytest.mark.parametrize("how", ["auto", "passive", "never"])
def test_newer_tables_are_refused(
    how: str, database_url: str, open_queue: OpenQueue
) -> None:
    declare(open_queue, database_url)
    later = f"SELECT {schema.VERSION + 1}, database_id FROM qconsume_version"
    execute(database_url, f"INSERT INTO qconsume_version {later}")
    with pytest.raises(TopologyMismatch, match="Update Flask-QConsume"):
        declare(open_queue, database_url, how)


def test_the_sql_that_is_shown_declares_all(
    database_url: str, open_queue: OpenQueue
) -> None:
    statements = open_queue(database_url).broker.list_ddl()
    for _ in range(2):
        for statement in statements:
            execute(database_url, statement)
    declare(open_queue, database_url, "passive")
    before = read_versions(database_url)
    declare(open_queue, database_url).publish(1)
    assert read_versions(database_url) == before


@pytest.mark.parametrize("url", ["sqlite:///no.db", "postgresql://no@127.0.0.1:9/no"])
def test_the_command_shows_sql_without_connecting(
    url: str, tmp_path: pathlib.Path
) -> None:
    app = Flask("shop", instance_path=str(tmp_path))
    app.config["QCONSUME_BROKER_URL"] = url
    qconsume = QConsume(app)
    qconsume.add_consumer("it's", lambda body: None, routing_key="a.#")
    result = invoke(app, "declare", "--sql")
    assert result.exit_code == 0, result.output
    assert "CREATE TABLE IF NOT EXISTS qconsume_message (" in result.output
    assert "INTO qconsume_queue (name) VALUES ('it''s') ON CONFLICT" in result.output
    assert "VALUES ('it''s', 'qconsume', 'a.#', 'topic')" in result.output
    assert ("BIGSERIAL" in result.output) == url.startswith("postgresql")
    assert list(tmp_path.iterdir()) == []


def test_the_command_has_no_sql_for_other_brokers() -> None:
    app = Flask("shop")
    app.config["QCONSUME_BROKER_URL"] = "redis://127.0.0.1:9"
    QConsume(app)
    result = invoke(app, "declare", "--sql")
    assert result.exit_code == 1
    assert "Redis is not a database" in result.output


def test_stale_bindings_are_removed(database_url: str, tmp_path: pathlib.Path) -> None:
    def make_app(*keys: str) -> Flask:
        app = Flask("shop", instance_path=str(tmp_path))
        app.config["QCONSUME_BROKER_URL"] = database_url
        QConsume(app).add_consumer("bill", lambda body: None, routing_key=list(keys))
        return app

    assert invoke(make_app("paid", "placed"), "declare").exit_code == 0
    pruned = invoke(make_app("paid"), "declare", "--prune", "--yes")
    assert pruned.output.endswith("Removed 1 stale binding.\n")
    assert execute(database_url, "SELECT pattern FROM qconsume_binding") == [("paid",)]


# -- upgrades --------------------------------------------------------------------------

#: From a version 0, made up here, whose dead letters had no place.
FROM_0 = {
    0: [
        Step(sa.text("ALTER TABLE qconsume_dead ADD COLUMN place TEXT")),
        Step(sa.update(DEAD).values(place="unknown")),
    ]
}


def make_version_0(open_queue: OpenQueue, url: str) -> SqlQueue:
    queue = declare(open_queue, url)
    execute(url, "DROP INDEX qconsume_dead_error")
    execute(url, "ALTER TABLE qconsume_dead DROP COLUMN place")
    execute(url, "UPDATE qconsume_version SET version = 0")
    insert = "INSERT INTO qconsume_dead (queue, until, meta, body) VALUES"
    execute(url, f"{insert} ('billing.dead', 99999999999, '{{}}', '1')")
    return queue


def test_each_version_has_an_upgrade() -> None:
    assert set(UPGRADES) == set(range(1, schema.VERSION))


def test_tables_are_upgraded(database_url: str, open_queue: OpenQueue) -> None:
    queue = make_version_0(open_queue, database_url)
    tables = Tables(queue.broker._shared.database, {**FROM_0, **UPGRADES})
    with pytest.raises(TopologyMismatch, match="version 0, and this release needs"):
        tables.check()
    tables.complete()
    tables.check()
    versions = read_versions(database_url)
    assert [number for number, _ in versions] == list(range(schema.VERSION + 1))
    assert len({name for _, name in versions}) == 1
    places = execute(database_url, "SELECT place FROM qconsume_dead")
    assert places == [("unknown",)]
    tables.complete()
    assert read_versions(database_url) == versions


def test_an_upgrade_that_fails_changes_nothing(
    database_url: str, open_queue: OpenQueue
) -> None:
    queue = make_version_0(open_queue, database_url)
    broken = [*FROM_0[0], Step(sa.text("INSERT INTO qconsume_nothing VALUES (1)"))]
    tables = Tables(queue.broker._shared.database, {0: broken, **UPGRADES})
    with pytest.raises(TopologyMismatch):
        tables.complete()
    assert [number for number, _ in read_versions(database_url)] == [0]
    with pytest.raises(sa.exc.DBAPIError):
        execute(database_url, "SELECT place FROM qconsume_dead")


def test_an_upgrade_by_another_process_meanwhile_is_enough(
    database_url: str, open_queue: OpenQueue
) -> None:
    queue = make_version_0(open_queue, database_url)
    database = queue.broker._shared.database
    upgrades = {**FROM_0, **UPGRADES}
    late = Tables(database, upgrades)
    Tables(database, upgrades).complete()
    late._write(0)
    late.check()


# -- several processes, and permissions ------------------------------------------------

DECLARE = """
import sys
from flask import Flask
from flask_qconsume import QConsume

app = Flask("shop")
app.config["QCONSUME_BROKER_URL"] = sys.argv[1]
qconsume = QConsume(app)

@qconsume.consumer("bill", routing_key=["order.created", "order.paid"])
def bill(order):
    pass

sys.stdin.readline()
app.extensions["qconsume"].broker.declare()
"""


@pytest.mark.process
def test_six_processes_declare_at_once(
    database_url: str, open_queue: OpenQueue
) -> None:
    command = [sys.executable, "-c", DECLARE, database_url]
    pipes: dict[str, t.Any] = {"stdin": -1, "stderr": -1, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(6)]
    for process in processes:
        process.stdin.write("now\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 6, errors
    assert len(read_versions(database_url)) == 1
    bindings = execute(database_url, "SELECT pattern FROM qconsume_binding ORDER BY 1")
    assert bindings == [("order.created",), ("order.paid",)]


@pytest.fixture
def restricted_url(postgresql_url: str) -> t.Iterator[str]:
    """The URL of a user who may use tables, and not create them."""
    name = f"user_{postgresql_url.rpartition('_')[2]}"
    execute(postgresql_url, f"CREATE USER {name} PASSWORD 'guest'")
    execute(
        postgresql_url,
        "ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO"
        f" {name}",
    )
    execute(
        postgresql_url, f"ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO {name}"
    )
    yield postgresql_url.replace("//guest:", f"//{name}:")
    execute(postgresql_url, f"DROP OWNED BY {name}")
    execute(postgresql_url, f"DROP USER {name}")


@pytest.mark.broker
def test_a_user_who_may_not_create_tables_uses_those_that_exist(
    postgresql_url: str, restricted_url: str, open_queue: OpenQueue
) -> None:
    with pytest.raises(BrokerRefused, match="permission denied"):
        declare(open_queue, restricted_url)
    declare(open_queue, postgresql_url)
    queue = declare(open_queue, restricted_url)
    queue.publish(1)
    assert queue.take_one(queue.link()).message.raw == b"1"


@pytest.mark.broker
def test_the_search_path_decides_the_schema(
    postgresql_url: str, open_queue: OpenQueue
) -> None:
    execute(postgresql_url, "CREATE TABLE qconsume_message (words text)")
    execute(postgresql_url, "CREATE SCHEMA queues")
    url = f"{postgresql_url}?options=-csearch_path%3Dqueues"
    declare(open_queue, url).publish(1)
    declare(open_queue, url, "passive")
    rows = execute(postgresql_url, "SELECT queue FROM queues.qconsume_message")
    assert rows == [("billing",)]


@pytest.mark.broker
def test_autovacuum_runs_often_on_tables_that_change_often(
    postgresql_url: str, open_queue: OpenQueue
) -> None:
    declare(open_queue, postgresql_url)
    found = execute(
        postgresql_url,
        "SELECT relname, array_to_string(reloptions, ' ') FROM pg_class"
        " WHERE reloptions IS NOT NULL AND relname LIKE 'qconsume%%' ORDER BY 1",
    )
    options = "autovacuum_vacuum_scale_factor=0.01 autovacuum_vacuum_cost_delay=0"
    assert found == [("qconsume_link", options), ("qconsume_message", options)]
