"""A pooler that gives each transaction to another session."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import pytest
import sqlalchemy as sa

from flask_qconsume.brokers.sql.postgresql.postgres_database import PostgresDatabase
from flask_qconsume.errors import BrokerRefused
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgresql import Database

from ..tools import SqlQueue
from ..tools import bodies

_POOLED = {"transaction_pooling": True}


def test_messages_are_published_and_found_without_announcements(
    pgbouncer: PgBouncer,
    postgresql_database: Database,
    open_queue: Callable[..., SqlQueue],
) -> None:
    url = pgbouncer.url_of(postgresql_database.name)
    queue, other = (open_queue(url, transport_options=_POOLED) for _ in range(2))
    link = queue.link()
    for number in range(10):
        other.publish(number)
    assert len(queue.take(link, 10)) == 10
    other.publish("late", delay=0.2)
    assert bodies(queue.take(link, 1)) == [b'"late"']


def test_prepared_statements_that_are_mixed_up_name_the_option(
    pgbouncer: PgBouncer,
    postgresql_database: Database,
    open_database: Callable[..., PostgresDatabase],
) -> None:
    url = pgbouncer.url_of(postgresql_database.name)
    first, second = open_database(url), open_database(url)

    def use(database: PostgresDatabase) -> None:
        for number in range(20):
            database.read(sa.text(f"SELECT {number % 2}"))

    with pytest.raises(BrokerRefused, match="'transaction_pooling': True"):
        gevent.joinall(
            [gevent.spawn(use, each) for each in (first, second) * 3],
            raise_error=True,
        )
