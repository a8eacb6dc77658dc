"""How long a consumer waits for a Kafka that does not answer."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import KafkaException

from flask_qconsume.brokers.kafka.client.outage import Outage


class ClockedOutage:
    """An outage with a session of ten seconds, on a virtual clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.there = False
        self.asked = 0
        self.outage = Outage(10.0, lambda: self.now)

    def check(self, later: float = 0.5) -> bool:
        self.now += later
        return self.outage.check(self._ask)

    def _ask(self, timeout: float) -> None:
        self.asked += 1
        if not self.there:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))


@pytest.fixture
def clocked_outage() -> ClockedOutage:
    return ClockedOutage()


def test_nothing_is_asked_while_connections_are_there(
    clocked_outage: ClockedOutage,
) -> None:
    assert not clocked_outage.check()
    assert clocked_outage.asked == 0


def test_connections_that_were_only_idle_are_no_outage(
    clocked_outage: ClockedOutage,
) -> None:
    clocked_outage.there = True
    clocked_outage.outage.begin()
    assert not clocked_outage.check()
    assert not clocked_outage.outage.is_confirmed
    assert not clocked_outage.check()
    assert clocked_outage.asked == 1


def test_its_beginning_and_its_end_are_news(clocked_outage: ClockedOutage) -> None:
    clocked_outage.outage.begin()
    assert clocked_outage.check()
    assert clocked_outage.outage.is_confirmed
    clocked_outage.outage.begin()
    assert not clocked_outage.check()
    clocked_outage.there = True
    assert clocked_outage.check()
    assert not clocked_outage.outage.is_confirmed
    assert not clocked_outage.check()
    assert clocked_outage.asked == 3


def test_it_is_not_asked_in_every_round(clocked_outage: ClockedOutage) -> None:
    clocked_outage.outage.begin()
    for _ in range(8):
        clocked_outage.check(0.125)
    assert clocked_outage.asked == 2


def test_it_is_over_with_the_session(clocked_outage: ClockedOutage) -> None:
    clocked_outage.outage.begin()
    for _ in range(19):
        clocked_outage.check()
    with pytest.raises(KafkaException):
        clocked_outage.check()
    assert clocked_outage.now == 110


def test_the_next_outage_has_a_whole_session(clocked_outage: ClockedOutage) -> None:
    clocked_outage.outage.begin()
    clocked_outage.check(9)
    clocked_outage.there = True
    clocked_outage.check()
    clocked_outage.there = False
    clocked_outage.outage.begin()
    assert clocked_outage.check(9)
    assert clocked_outage.outage.is_confirmed
