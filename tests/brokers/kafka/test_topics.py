"""Which links are told of topics that are created or deleted later."""

from __future__ import annotations

import typing as t
from collections.abc import Collection
from collections.abc import Mapping

from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.brokers.kafka.topics import TopicListeners
from flask_qconsume.brokers.kafka.topics import look_interval

from .tools import plan


class FakeLink:
    """A link that notes the topics that it is told of."""

    def __init__(self, plan: QueuePlan, lane: Lane = Lane.MAIN) -> None:
        self.plan = plan
        self.lane = lane
        self.closed = False
        self.told: list[Mapping[str, int]] = []
        self.missing: frozenset[str] = frozenset()

    def set_missing(self, topics: Collection[str]) -> None:
        self.missing = frozenset(topics)

    def refresh_topics(self, topics: Mapping[str, int]) -> None:
        self.told.append(topics)


def add(to: TopicListeners, link: FakeLink, **known: int) -> FakeLink:
    to.add(t.cast(t.Any, link), known)
    return link


def test_a_link_is_told_of_what_it_reads_and_did_not_know() -> None:
    listeners = TopicListeners()
    link = add(
        listeners, FakeLink(plan("billing", "order.*", "refund")), refund=2, no=1
    )
    assert link.told == [{"refund": 2}]
    retries = "_qconsume.billing.retry.8"
    listeners.announce({"refund": 2, "order.new": 3, retries: 1, "other": 1})
    assert link.told[1:] == [{"order.new": 3, retries: 1}]
    listeners.announce({"refund": 2, "order.new": 3, retries: 1, "another": 1})
    assert len(link.told) == 2


def test_partitions_that_are_added_are_news_and_a_topic_that_comes_again() -> None:
    listeners = TopicListeners()
    link = add(listeners, FakeLink(plan("billing")), billing=2)
    listeners.announce({"billing": 4})
    listeners.announce({})
    listeners.announce({"billing": 4})
    assert link.told == [{"billing": 2}, {"billing": 4}, {"billing": 4}]


def test_a_lane_is_told_of_its_own_topic_only() -> None:
    listeners = TopicListeners()
    link = add(listeners, FakeLink(plan("billing"), Lane.SUSPECTS), billing=1)
    listeners.announce({"billing": 2, "_qconsume.billing.suspects": 1})
    assert link.told == [{"_qconsume.billing.suspects": 1}]


def test_a_link_that_is_closed_is_told_no_more_and_forgotten() -> None:
    listeners = TopicListeners()
    closed = add(listeners, FakeLink(plan("billing")))
    closed.closed = True
    listeners.announce({"billing": 1})
    closed.closed = False
    listeners.announce({"billing": 2})
    assert closed.told == []


def test_a_link_misses_topics_that_it_names_until_they_come_back() -> None:
    listeners = TopicListeners()
    link = add(
        listeners, FakeLink(plan("billing", "refund", "late", "order.*")), refund=2
    )
    listeners.announce({"refund": 2, "order.new": 1})
    assert not link.missing
    listeners.announce({"other": 1})
    assert link.missing == {"refund"}
    listeners.announce({"more": 1})
    assert link.missing == {"refund"}
    listeners.announce({"refund": 1})
    assert not link.missing


def test_it_is_looked_the_less_the_longer_a_look_takes() -> None:
    assert [look_interval(took) for took in (0.01, 1.0, 2.0, 100.0)] == [
        8.0,
        20.0,
        40.0,
        60.0,
    ]
