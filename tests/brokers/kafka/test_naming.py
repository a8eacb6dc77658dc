"""Which topics, groups and patterns belong to a queue on Kafka."""

from __future__ import annotations

import re

import pytest
from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from flask_qconsume import UnsupportedByBroker
from flask_qconsume.broker import topic_patterns as matching
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.topology import Binding
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.brokers.kafka import naming
from tests.fuzz.cost import counted

WORDS = st.sampled_from(["a", "b", "order", "x-1", "*", "#"])
PATTERNS = st.lists(WORDS, min_size=1, max_size=5).map(".".join)
TOPICS = st.lists(
    st.sampled_from(["a", "b", "order", "x-1", "z"]), min_size=1, max_size=6
).map(".".join)

ODD = st.lists(st.sampled_from(["a", "_a", "", "*", "#"]), min_size=1, max_size=5).map(
    ".".join
)


def plan(*keys: str, name: str = "billing", prefix: str = "") -> QueuePlan:
    bindings = tuple(Binding(name, "qconsume", key) for key in keys)
    return QueuePlan(name, "bill", "quorum", bindings, prefix=prefix)


@settings(deadline=None)
@given(PATTERNS, TOPICS)
def test_a_pattern_means_on_kafka_what_it_means_elsewhere(
    pattern: str, topic: str
) -> None:
    found = any(re.fullmatch(each, topic) for each in naming.topic_expressions(pattern))

    assert found == matching.matches(pattern, topic)


@settings(deadline=None)
@given(PATTERNS | ODD, TOPICS | ODD.filter(bool))
def test_a_worker_knows_which_topics_the_client_reads_for_it(
    pattern: str, topic: str
) -> None:
    names = naming.subscription(plan(pattern), Lane.MAIN)
    read = any(
        re.fullmatch(name, topic) if name.startswith("^") else name == topic
        for name in names
    )

    assert naming.is_read_by(plan(pattern), topic) == read


def test_that_takes_some_steps_for_each_word() -> None:
    read = naming.topic_filter(plan("#.a.#.a.#.a.#.a.#.a.c"), Lane.MAIN)

    found, steps = counted(lambda: read("a." * 100 + "b"))

    assert not found
    assert steps < 1_000


@pytest.mark.parametrize("pattern", ["#", "*", "#.#", "*.#", "#.*", "*.dead", "#.dead"])
@pytest.mark.parametrize(
    "topic",
    ["_qconsume.billing.dead", "_qconsume.b.retry.1", "__consumer_offsets", "_schemas"],
)
def test_no_pattern_matches_what_begins_with_an_underscore(
    pattern: str, topic: str
) -> None:
    assert not any(
        re.fullmatch(each, topic) for each in naming.topic_expressions(pattern)
    )


def test_a_group_reads_its_topics_its_patterns_and_its_retries() -> None:
    found = plan("order.created", "refund.*")

    assert naming.subscription(found, Lane.MAIN) == [
        "order.created",
        r"^refund\.[^.]*$",
        r"^_qconsume\.billing\.retry\.[0-9]+$",
    ]
    assert naming.is_read_by(found, "order.created")
    assert naming.is_read_by(found, "refund.asked")
    assert naming.is_read_by(found, "_qconsume.billing.retry.16")
    assert not naming.is_read_by(found, "orderxcreated")
    assert not naming.is_read_by(found, "_qconsume.billing.dead")
    assert not naming.is_read_by(found, "_qconsume.billing2.retry.16")


@settings(deadline=None)
@given(PATTERNS, TOPICS, st.sampled_from(["stage.", "stage-", "a+", "a."]))
def test_a_prefix_is_before_the_topics_of_any_key(
    pattern: str, topic: str, prefix: str
) -> None:
    found = plan(pattern, prefix=prefix)
    names = naming.subscription(found, Lane.MAIN)
    read = any(
        re.fullmatch(name, prefix + topic)
        if name.startswith("^")
        else name == prefix + topic
        for name in names
    )

    assert read == matching.matches(pattern, topic)
    assert naming.is_read_by(found, prefix + topic) == read
    assert not naming.is_read_by(found, f"other.{topic}")


def test_suspects_have_a_group_and_a_topic_of_their_own() -> None:
    found = plan("order.created")

    assert naming.group_of(found, Lane.MAIN) == "billing"
    assert naming.group_of(found, Lane.SUSPECTS) == "billing.suspects"
    assert naming.subscription(found, Lane.SUSPECTS) == ["_qconsume.billing.suspects"]


@pytest.mark.parametrize(
    ("delay", "step"),
    [(0, 0), (0.1, 1), (1, 1), (1.1, 2), (4, 4), (900, 1024), (604_800, 604_800)],
)
def test_a_step_is_as_long_as_the_delay_at_least(delay: float, step: int) -> None:
    assert naming.step_for(delay) == step


def test_a_delay_beyond_a_week_is_a_week() -> None:
    assert naming.step_for(10_000_000) == 604_800


@pytest.mark.parametrize(
    ("topic", "held"),
    [
        ("_qconsume.billing.retry.8", True),
        ("_qconsume.a.b.retry.604800", True),
        ("_qconsume.billing.suspects", False),
        ("billing.retry.8", False),
        ("order.created", False),
    ],
)
def test_only_retries_are_held_back(topic: str, held: bool) -> None:
    assert naming.is_retry_topic(topic) is held


@pytest.mark.parametrize("name", ["an order", "é", "a/b", "x" * 250, ".", ".."])
def test_a_name_that_no_topic_can_have_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedByBroker, match="cannot be one on Kafka"):
        naming.check_topic(name, "The routing key")


def test_a_queue_with_impossible_topics_is_refused() -> None:
    with pytest.raises(UnsupportedByBroker, match="queue's topic"):
        naming.check_plan(plan("order", name="x" * 240))
    with pytest.raises(UnsupportedByBroker, match="'an order'"):
        naming.check_plan(plan("an order"))
    naming.check_plan(plan("order.#", "a" * 249))


NAMES = st.text(st.sampled_from("_xX4@0F.-é"), min_size=1, max_size=12)


@given(NAMES, NAMES)
@example("_x4@", "_x4_x40_")
@example("_x40_", "@")
def test_names_that_are_escaped_come_back_and_stay_apart(one: str, other: str) -> None:
    for name in one, other:
        assert re.fullmatch(r"[a-zA-Z0-9._-]+", naming.escape(name))
        assert naming.unescape(naming.escape(name)) == name
    assert (naming.escape(one) == naming.escape(other)) == (one == other)


def test_names_that_a_topic_can_have_stay_as_they_are() -> None:
    for name in ("billing", "a.b-c_d", "_x", "x40_", "_x40", "_xy_", "a_b_x4.c"):
        assert naming.escape(name) == name
    assert naming.escape_routing_key("*.a@b.#") == "*.a_x40_b.#"
    assert naming.unescape("_xFFFFFFFF_") == "_xFFFFFFFF_"
