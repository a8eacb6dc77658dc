"""Announcements by LISTEN and NOTIFY, between processes and from other programs."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable

import psycopg

from flask_qconsume.brokers.sql.database import Channel
from flask_qconsume.brokers.sql.postgresql.notifications import decode_payload
from flask_qconsume.brokers.sql.postgresql.notifications import encode_payload
from flask_qconsume.brokers.sql.postgresql.postgres_database import PostgresDatabase
from tests.servers.postgresql import Database

from ....waiting import wait_for
from ..tools import SqlQueue
from ..tools import bodies

Open = Callable[..., PostgresDatabase]

_LISTENERS = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%%'"


class Heard:
    """A channel that listens, and all that it has heard."""

    def __init__(self, database: PostgresDatabase) -> None:
        self.all: list[set[str] | None] = []
        self.channel: Channel = database.open_channel(self._hear)
        self.channel.start()
        # A listener that is new tells to look at all queues.
        self.await_one(None)

    def await_one(self, queues: set[str] | None) -> None:
        wait_for(lambda: queues in self.all, message=lambda: self.all)

    def _hear(self, queues: t.Any) -> None:
        self.all.append(queues)


def test_the_listener_hears_other_processes_and_not_its_own(
    postgresql_url: str, open_database: Open
) -> None:
    first, second = (Heard(open_database(postgresql_url)) for _ in range(2))
    first.channel.announce(["billing", "stock"])
    second.await_one({"billing", "stock"})
    second.channel.announce(["mail"])
    first.await_one({"mail"})
    assert first.all == [None, {"mail"}]
    first.channel.close()
    second.channel.close()


def test_other_programs_may_notify(
    postgresql_database: Database, open_database: Open
) -> None:
    heard = Heard(open_database(postgresql_database.url))
    heard.all.clear()
    postgresql_database.execute("NOTIFY qconsume, 'billing'")
    heard.await_one({"billing"})
    postgresql_database.execute("NOTIFY qconsume")
    heard.await_one(None)
    heard.channel.close()


def test_ten_thousand_publishes_are_some_announcements(
    postgresql_database: Database, open_database: Open
) -> None:
    heard = Heard(open_database(postgresql_database.url))
    sender = open_database(postgresql_database.url).open_channel(lambda queues: None)
    for number in range(10_000):
        sender.announce([f"queue{number % 7}"])
    sender.announce(["last"])
    wait_for(lambda: any(queues and "last" in queues for queues in heard.all))
    assert len(heard.all) < 1_000
    assert {f"queue{n}" for n in range(7)} <= set().union(*filter(None, heard.all))
    heard.channel.close()
    sender.close()


def test_the_last_announcement_is_sent_before_the_end(
    postgresql_url: str, open_database: Open
) -> None:
    heard = Heard(open_database(postgresql_url))
    sender = open_database(postgresql_url).open_channel(lambda queues: None)
    sender.announce(["first"])
    sender.announce(["second"])
    sender.close()
    heard.await_one({"first", "second"})
    heard.channel.close()


def test_too_many_names_for_one_text_mean_all_queues() -> None:
    names = [f"{'é' * 200}{number}" for number in range(30)]
    text = encode_payload("me", names)
    assert decode_payload(text) == ("me", None)
    assert decode_payload(encode_payload("me", names[:3])) == ("me", set(names[:3]))


def test_a_lost_listener_is_replaced_and_then_all_queues_are_looked_at(
    postgresql_database: Database, open_database: Open
) -> None:
    heard = Heard(open_database(postgresql_database.url))
    heard.all.clear()
    ((pid,),) = postgresql_database.execute(_LISTENERS)
    postgresql_database.execute("SELECT pg_terminate_backend(%s)", pid)
    heard.await_one(None)
    postgresql_database.execute("NOTIFY qconsume, 'billing'")
    heard.await_one({"billing"})
    heard.channel.close()


def test_a_process_that_only_publishes_does_not_listen(
    postgresql_database: Database, open_queue: Callable[..., SqlQueue]
) -> None:
    queue = open_queue(postgresql_database.url)
    queue.publish(1)
    assert postgresql_database.execute(_LISTENERS) == []
    queue.take_one(queue.link())
    wait_for(lambda: len(postgresql_database.execute(_LISTENERS)) == 1)


def test_the_listener_is_not_a_connection_of_the_pool(
    postgresql_database: Database, open_database: Open
) -> None:
    """One that went back to the pool would be lent while it listens."""
    database = open_database(postgresql_database.url, pool_size=1)
    heard = Heard(database)
    ((listening,),) = postgresql_database.execute(_LISTENERS)
    with database._pool.get().lend(5) as connection:
        assert connection.info.backend_pid != listening
    heard.channel.close()
    wait_for(lambda: postgresql_database.execute(_LISTENERS) == [])


def test_a_message_of_another_process_wakes_a_reader(
    postgresql_url: str, open_queue: Callable[..., SqlQueue]
) -> None:
    reading, publishing = open_queue(postgresql_url), open_queue(postgresql_url)
    publishing.broker.declare()
    link = reading.link()
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.extend(bodies(link.read(1))))
    thread.start()
    publishing.publish("hello")
    thread.join(9)  # Less than a reader without a message waits.
    assert found == [b'"hello"']


def test_an_announcement_that_is_lost_delays_for_a_second(
    postgresql_database: Database, open_queue: Callable[..., SqlQueue]
) -> None:
    queue = open_queue(postgresql_database.url)
    link = queue.link()
    assert link.read(0) == []
    with psycopg.connect(postgresql_database.url, autocommit=True) as foreign:
        foreign.execute(
            "INSERT INTO qconsume_message (queue, body) VALUES ('billing', '1')"
        )
    assert bodies(queue.take(link, 1, timeout=8)) == [b"1"]
