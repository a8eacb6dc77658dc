"""How a client is made to look for new topics."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import KafkaException

from flask_qconsume.brokers.kafka.client.topic_refresh import TopicRefresh


class Topic(t.NamedTuple):
    partitions: range


class ClockedRefresh:
    """A client that sees these topics, on a virtual clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked = 0
        self.answers = True
        self.there: dict[str, int] = {}
        self.refresh = TopicRefresh(self._topics, lambda: self.now)

    def look(self, later: float = 0.5) -> int:
        """Look after some seconds; return how often the client was asked so far."""
        self.now += later
        self.refresh.look_if_due()
        return self.asked

    def _topics(self, timeout: float) -> Mapping[str, Topic]:
        self.asked += 1
        if not self.answers:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return {name: Topic(range(number)) for name, number in self.there.items()}


@pytest.fixture
def clocked_refresh() -> ClockedRefresh:
    return ClockedRefresh()


def test_nothing_is_asked_for_before_something_is_sought(
    clocked_refresh: ClockedRefresh,
) -> None:
    assert clocked_refresh.look() == 0


def test_what_is_sought_from_the_start_is_left_to_the_client_at_first(
    clocked_refresh: ClockedRefresh,
) -> None:
    clocked_refresh.there = {"orders": 1}
    clocked_refresh.refresh.request({"orders": 1})
    assert clocked_refresh.look(0.4) == 0
    assert clocked_refresh.look(0.1) == 1


def test_what_is_seen_is_sought_no_more(clocked_refresh: ClockedRefresh) -> None:
    clocked_refresh.there = {"orders": 2}
    clocked_refresh.refresh.request({"orders": 2})
    assert clocked_refresh.look() == 1
    assert clocked_refresh.look() == 1


def test_it_is_looked_again_until_all_of_it_is_seen(
    clocked_refresh: ClockedRefresh,
) -> None:
    clocked_refresh.there = {"orders": 1}
    clocked_refresh.refresh.request({"orders": 2})
    clocked_refresh.refresh.request({"refunds": 1})
    assert clocked_refresh.look() == 1
    assert clocked_refresh.look(0.1) == 1
    clocked_refresh.there = {"orders": 2}
    assert clocked_refresh.look(0.4) == 2
    clocked_refresh.there = {"orders": 2, "refunds": 1}
    assert clocked_refresh.look() == 3
    assert clocked_refresh.look() == 3


def test_a_topic_that_is_gone_again_is_not_sought_for_ever(
    clocked_refresh: ClockedRefresh,
) -> None:
    clocked_refresh.refresh.request({"orders": 1})
    asked = [clocked_refresh.look() for _ in range(100)]
    assert asked[-1] == asked[-50] < 50
    clocked_refresh.refresh.request({"orders": 1})
    assert clocked_refresh.look() == asked[-1] + 1


def test_a_broker_that_does_not_answer_is_asked_again_later(
    clocked_refresh: ClockedRefresh,
) -> None:
    clocked_refresh.answers = False
    clocked_refresh.refresh.request({"orders": 1})
    for _ in range(100):
        clocked_refresh.look()
    clocked_refresh.answers, clocked_refresh.there = True, {"orders": 1}
    assert clocked_refresh.look() == 101
    assert clocked_refresh.look() == 101
