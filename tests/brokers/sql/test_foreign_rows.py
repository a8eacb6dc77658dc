"""Rows that other programs insert: by the databases' shells, and with odd values."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable

import pytest

from flask_qconsume.message import Message
from tests.servers.fixtures import refuse

from .tools import SqlQueue
from .tools import bodies
from .tools import dead_letter
from .tools import execute
from .tools import look

INSERT = "INSERT INTO qconsume_message"


def run_shell(url: str, statement: str) -> None:
    """Run a statement in the shell of the database."""
    scheme, _, path = url.partition(":///")
    if scheme == "sqlite":
        command = ["sqlite3", "-bail", "-cmd", ".timeout 10000", path, statement]
    else:
        command = ["psql", "-v", "ON_ERROR_STOP=1", "-c", statement, url]
    if shutil.which(command[0]) is None:
        refuse(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def take_one(queue: SqlQueue) -> Message:
    return queue.take_one(queue.link()).message


@pytest.mark.process
def test_a_row_of_a_shell_needs_a_queue_and_a_body(
    queue: SqlQueue, database_url: str
) -> None:
    link = queue.link()
    before = time.time()
    run_shell(
        database_url,
        INSERT + " (queue, body) VALUES ('billing', '{\"id\": 7}')",
    )
    (delivery,) = queue.take(link, 1)
    message = delivery.message
    assert message.raw == b'{"id": 7}'
    assert (message.queue, message.routing_key) == ("billing", "billing")
    assert (message.exchange, message.id, message.key) == ("", None, None)
    assert (message.content_type, message.attempt) == (None, 1)
    assert not message.redelivered
    (since,) = execute(database_url, "SELECT since FROM qconsume_message")
    assert before - 1 < since[0] < time.time() + 1
    link.ack([delivery])
    assert queue.broker.depth("billing") == 0


def test_a_row_has_what_its_columns_and_meta_say(
    queue: SqlQueue, database_url: str
) -> None:
    queue.broker.declare()
    meta = (
        '{"message_id": "order-7", "content_type": "text/plain", "app_id": "till",'
        ' "priority": 3, "timestamp": 1700000000, "exchange": "shop",'
        ' "routing_key": "order.paid", "headers": {"tenant": "acme"}}'
    )
    execute(
        database_url,
        INSERT
        + f" (queue, key, meta, body) VALUES ('billing', 'customer-3', '{meta}', 'ok')",
    )
    message = take_one(queue)
    assert (message.id, message.content_type) == ("order-7", "text/plain")
    assert (message.exchange, message.routing_key) == ("shop", "order.paid")
    assert message.key == "customer-3"
    assert message.headers["tenant"] == "acme"
    assert (message.priority, message.timestamp) == (3, 1_700_000_000)
    assert message.properties["app_id"] == "till"


def test_rows_come_by_their_rank_and_when_they_are_due(
    queue: SqlQueue, database_url: str
) -> None:
    queue.broker.declare()
    later, past = time.time() + 3600, time.time() - 1
    execute(
        database_url,
        INSERT + " (queue, rank, due, expires, body) VALUES"
        " ('billing', 0, NULL, NULL, 'plain'), ('billing', -9, NULL, NULL, 'first'),"
        f" ('billing', 0, {past}, NULL, 'due'), ('billing', 0, {later}, NULL, 'late'),"
        f" ('billing', 0, NULL, {later}, 'in time')",
    )
    link = queue.link()
    queue.await_depth(4)
    found = bodies(queue.take(link, 4))
    assert found[0] == b"first"
    assert sorted(found) == [b"due", b"first", b"in time", b"plain"]
    assert look(link) == []


@pytest.mark.parametrize("meta", ["", "{", "[1]", "null", '{"headers": 7, "type": []}'])
def test_a_row_with_an_unreadable_meta_is_read(
    queue: SqlQueue, database_url: str, meta: str
) -> None:
    queue.broker.declare()
    execute(
        database_url,
        INSERT + f" (queue, meta, body) VALUES ('billing', '{meta}', '7')",
    )
    message = take_one(queue)
    assert (message.raw, message.id, message.headers) == (b"7", None, {})


def test_the_key_of_a_row_is_kept_by_its_dead_letter_and_replay(
    queue: SqlQueue, database_url: str
) -> None:
    queue.broker.declare()
    execute(
        database_url,
        INSERT + " (queue, key, body) VALUES ('billing', 'customer-3', '7')",
    )
    link = queue.link()
    (delivery,) = queue.take(link, 1)
    assert link.forward([dead_letter(delivery)]) == [None]
    letters = queue.broker.dead_letters(queue.plan)
    assert letters.take(lambda letter: True, replay=True) == 1
    assert queue.take_one(link).message.key == "customer-3"


def test_numbers_and_texts_are_bodies_in_sqlite(
    sqlite_url: str, open_queue: Callable[..., SqlQueue]
) -> None:
    queue = open_queue(sqlite_url)
    queue.broker.declare()
    execute(
        sqlite_url,
        INSERT + " (queue, body) VALUES ('billing', 7), ('billing', 'Grün')",
    )
    found = queue.take(queue.link(), 2)
    assert bodies(found) == [b"7", "Grün".encode()]
