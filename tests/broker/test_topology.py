"""The topology of an app, computed from its consumers."""

from __future__ import annotations

import kombu
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_qconsume import ConsumerBlueprint
from flask_qconsume import QConsume
from flask_qconsume import RetryPolicy
from flask_qconsume.broker.topology import Binding
from flask_qconsume.broker.topology import Topology
from tests.apps import make_app


def topology(qconsume: QConsume, **config: object) -> Topology:
    found = make_app(qconsume, **config).extensions["qconsume"].topology
    assert isinstance(found, Topology)
    return found


def test_a_work_queue_is_bound_by_its_own_name() -> None:
    qconsume = QConsume()
    qconsume.add_consumer("billing", print, name="bill")
    found = topology(qconsume, queue_prefix="stage.", exchange="shop")
    (plan,) = found.queues
    assert (plan.name, plan.consumer, plan.type) == ("stage.billing", "bill", "quorum")
    assert plan.bindings == (Binding("stage.billing", "stage.shop", "billing"),)
    assert (plan.suspects, plan.dead) == (
        "stage.billing.suspects",
        "stage.billing.dead",
    )
    assert (found.exchange, plan.prefix) == ("stage.shop", "stage.")


def test_a_subscriber_is_bound_by_each_of_its_keys() -> None:
    qconsume = QConsume()
    qconsume.add_consumer("a", print, name="a", routing_key=["order.*", "#.paid"])
    qconsume.add_consumer("b", print, name="b", routing_key="order.*")
    found = topology(qconsume, queue_type="classic")
    assert found.bindings == (
        Binding("a", "qconsume", "order.*"),
        Binding("a", "qconsume", "#.paid"),
        Binding("b", "qconsume", "order.*"),
    )
    assert {plan.type for plan in found.queues} == {"classic"}


def test_a_queue_is_found_by_its_name() -> None:
    qconsume = QConsume()
    for name in ("a", "b"):
        qconsume.add_consumer(name, print, name=name)
    found = topology(qconsume)
    assert found.queue("b").consumer == "b"
    with pytest.raises(StopIteration):
        found.queue("c")


EVENTS = kombu.Exchange("events", "topic")


@pytest.mark.parametrize(
    ("queue", "bindings"),
    [
        (kombu.Queue("q"), []),
        (kombu.Queue("q", EVENTS, "order.#"), [("events", "order.#")]),
        (kombu.Queue("q", EVENTS), [("events", "")]),
        (
            kombu.Queue(
                "q",
                bindings=[
                    kombu.binding(EVENTS, "a"),
                    kombu.binding(kombu.Exchange("other"), "b"),
                ],
            ),
            [("events", "a"), ("other", "b")],
        ),
        (kombu.Queue("q", kombu.Exchange(""), "q"), []),
    ],
)
def test_a_given_queue_brings_its_bindings(
    queue: kombu.Queue, bindings: list[tuple[str, str]]
) -> None:
    qconsume = QConsume()
    qconsume.add_consumer(queue, print, name="theirs")
    (plan,) = topology(qconsume, queue_prefix="stage.").queues
    assert (plan.given, plan.prefix) == (queue, "")
    assert {*plan.bindings} == {Binding("q", *pair) for pair in bindings}


def test_consumers_that_are_switched_off_keep_their_queues() -> None:
    blueprint = ConsumerBlueprint("orders", __name__)
    blueprint.add_consumer("q", print, name="bill")
    app = make_app(None, blueprint, consumers={"orders.bill": {"enabled": False}})
    assert [p.name for p in app.extensions["qconsume"].topology.queues] == ["q"]


@given(
    max_delay=st.floats(0.1, 604_800),
    jitter=st.floats(0, 1),
    share=st.floats(0, 1),
    randoms=st.lists(st.floats(0, 1), min_size=5, max_size=5),
)
def test_no_delay_of_a_policy_is_longer_than_the_topology_plans(
    max_delay: float, jitter: float, share: float, randoms: list[float]
) -> None:
    policy = RetryPolicy(
        min_delay=share * max_delay / (1 + jitter), max_delay=max_delay, jitter=jitter
    )
    qconsume = QConsume()
    qconsume.add_consumer("billing", print, name="bill", retry=policy)
    (plan,) = topology(qconsume).queues
    for attempt, number in enumerate(randoms, 1):
        delay = policy.delay(attempt, lambda number=number: number)
        planned = policy.longest_delay(attempt)
        assert planned in plan.delays
        assert delay <= planned <= delay * (1 + jitter) * 1.000001
