"""Which links hear of topics that came later."""

from __future__ import annotations

import typing as t
from collections.abc import Collection
from collections.abc import Mapping

from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.brokers.kafka.newcomers import TopicListeners
from flask_qconsume.brokers.kafka.topics import recent

from .shop import plan


class Ear:
    """As much of a link as is told anything."""

    def __init__(self, plan: QueuePlan, lane: Lane = Lane.MAIN) -> None:
        self.plan = plan
        self.lane = lane
        self.closed = False
        self.heard: list[Mapping[str, int]] = []
        self.missing: frozenset[str] = frozenset()

    def miss(self, topics: Collection[str]) -> None:
        self.missing = frozenset(topics)

    def find(self, topics: Mapping[str, int]) -> None:
        self.heard.append(topics)


def added(to: TopicListeners, ear: Ear, **known: int) -> Ear:
    to.add(t.cast(t.Any, ear), known)
    return ear


def test_a_link_hears_of_what_it_reads_and_did_not_know() -> None:
    newcomers = TopicListeners()
    ear = added(newcomers, Ear(plan("billing", "order.*", "refund")), refund=2, no=1)
    assert ear.heard == [{"refund": 2}]
    retries = "_qconsume.billing.retry.8"
    newcomers.tell({"refund": 2, "order.new": 3, retries: 1, "other": 1})
    assert ear.heard[1:] == [{"order.new": 3, retries: 1}]
    newcomers.tell({"refund": 2, "order.new": 3, retries: 1, "another": 1})
    assert len(ear.heard) == 2


def test_partitions_that_are_added_are_news_and_a_topic_that_comes_again() -> None:
    newcomers = TopicListeners()
    ear = added(newcomers, Ear(plan("billing")), billing=2)
    newcomers.tell({"billing": 4})
    newcomers.tell({})
    newcomers.tell({"billing": 4})
    assert ear.heard == [{"billing": 2}, {"billing": 4}, {"billing": 4}]


def test_a_lane_hears_of_its_own_topic_only() -> None:
    newcomers = TopicListeners()
    lane = added(newcomers, Ear(plan("billing"), Lane.SUSPECTS), billing=1)
    newcomers.tell({"billing": 2, "_qconsume.billing.suspects": 1})
    assert lane.heard == [{"_qconsume.billing.suspects": 1}]


def test_a_link_that_is_closed_is_told_no_more_and_forgotten() -> None:
    newcomers = TopicListeners()
    closed = added(newcomers, Ear(plan("billing")))
    closed.closed = True
    newcomers.tell({"billing": 1})
    closed.closed = False
    newcomers.tell({"billing": 2})
    assert closed.heard == []


def test_a_link_misses_topics_that_it_names_until_they_come_back() -> None:
    newcomers = TopicListeners()
    ear = added(newcomers, Ear(plan("billing", "refund", "late", "order.*")), refund=2)
    newcomers.tell({"refund": 2, "order.new": 1})
    assert not ear.missing
    newcomers.tell({"other": 1})
    assert ear.missing == {"refund"}
    newcomers.tell({"more": 1})
    assert ear.missing == {"refund"}
    newcomers.tell({"refund": 1})
    assert not ear.missing


def test_it_is_looked_the_less_the_longer_a_look_takes() -> None:
    assert [recent(took) for took in (0.01, 1.0, 2.0, 100.0)] == [8.0, 20.0, 40.0, 60.0]
