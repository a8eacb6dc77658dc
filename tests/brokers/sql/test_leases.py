"""Leases of several links of one process, which one statement renews."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from flask_qconsume.brokers.sql.database import Step
from flask_qconsume.brokers.sql.schema import LINK
from flask_qconsume.brokers.sql.schema import L
from flask_qconsume.brokers.sql.schema import now
from flask_qconsume.errors import BrokerUnavailable

from .tools import SqlQueue


def execute(queue: SqlQueue, statement: sa.Executable) -> None:
    queue.broker._shared.database.write([Step(statement)])


def count_short(queue: SqlQueue) -> int:
    """Count the leases that end within a second."""
    short = sa.select(sa.func.count()).where(L.until < now() + 1)
    (number,) = queue.broker._shared.database.read_one(short)
    return int(number)


def test_a_link_renews_the_leases_of_its_neighbours(queue: SqlQueue) -> None:
    first, second = queue.link(), queue.link()
    first.keep_alive()
    execute(queue, sa.update(LINK).values(until=now() + 0.5))
    assert count_short(queue) == 2
    second.keep_alive()
    assert count_short(queue) == 0


def test_a_lost_lease_is_told_to_its_link_only(queue: SqlQueue) -> None:
    lost, kept = queue.link(), queue.link()
    lost.keep_alive()
    execute(queue, sa.delete(LINK).where(L.id == lost._number))
    kept.keep_alive()
    assert not kept.closed
    with pytest.raises(BrokerUnavailable, match="had ended"):
        lost.keep_alive()
    assert lost.closed
