"""How much is fetched ahead, and which partitions are paused."""

from __future__ import annotations

from confluent_kafka import KafkaError

from flask_qconsume.brokers.kafka.client.flow_control import FlowControl

from .fakes import Fetched
from .fakes import client
from .fakes import filled
from .fakes import new_partition

EVERYTHING = 10**6


def test_too_much_is_paused_at_once_and_goes_on_when_half_is_gone() -> None:
    flow, asked, one = FlowControl(), client(), filled(new_partition(), 250)
    flow.update(asked, [one], 100, False)
    assert flow.room <= 0
    assert asked.paused == {0}
    one.mark(190, 0.0)
    flow._next_flow_check = 0.0
    flow.update(asked, [one], 100, False)
    assert asked.paused == {0}
    one.mark(20, 0.0)
    flow._next_flow_check = 0.0
    flow.update(asked, [one], 100, False)
    assert asked.paused == set()
    assert flow.room == 60


def test_a_new_partition_gets_the_state_of_all_other_ones() -> None:
    """The client may keep a partition's state from when it was lost, and does not tell
    it.
    """
    flow, asked, first = FlowControl(), client(), filled(new_partition(), 250)
    flow.update(asked, [first], 100, False)
    coming = new_partition(1)
    flow._next_flow_check = 0.0
    flow.update(asked, [first, coming], 100, False)
    assert asked.paused == {0, 1}
    again = new_partition(1)
    first.mark(EVERYTHING, 0.0)
    flow._next_flow_check = 0.0
    flow.update(asked, [first, again], 100, False)
    assert asked.paused == set()


def test_large_records_take_room_by_their_size() -> None:
    flow, one = FlowControl(), filled(new_partition(), 8, size=1024 * 1024)
    flow.update(client(), [one], 1_000, False)
    assert flow.room == 8
    filled(new_partition(), 0)
    for number in range(8, 17):
        one.add_fetched(Fetched(number, size=1024 * 1024))
    flow.update(client(), [one], 1_000, False)
    assert flow.room == 0


def test_a_pause_that_the_client_refuses_is_tried_again() -> None:
    flow, asked, one = FlowControl(), client(), filled(new_partition(), 250)
    asked.fails = KafkaError(KafkaError._STATE)
    flow.update(asked, [one], 100, False)
    assert not one.paused
    asked.fails = None
    flow._next_flow_check = 0.0
    flow.update(asked, [one], 100, False)
    assert one.paused
