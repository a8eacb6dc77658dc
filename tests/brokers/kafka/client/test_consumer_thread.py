"""The native thread of a consumer: partitions that move, and errors."""

from __future__ import annotations

import typing as t

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition

from flask_qconsume import BrokerError
from flask_qconsume import BrokerRefused
from flask_qconsume import BrokerUnavailable
from flask_qconsume.brokers.kafka.client.consumer_thread import ConsumerThread
from flask_qconsume.brokers.kafka.client.errors import is_refusal
from flask_qconsume.brokers.kafka.client.errors import translate_error
from flask_qconsume.brokers.kafka.client.membership import Membership
from flask_qconsume.brokers.kafka.client.shared_state import SharedState
from flask_qconsume.brokers.kafka.client.terms import ConsumerTerms

from .fakes import Client


@pytest.fixture
def thread(shared: SharedState) -> ConsumerThread:
    return ConsumerThread({}, [], ConsumerTerms(10), shared)


class Moving(Client):
    """A client during a rebalance: a pause in a callback would never return."""

    def pause(self, places: list[TopicPartition]) -> None:
        raise AssertionError("asked for in a callback")

    resume = pause

    def assign(self, places: list[TopicPartition]) -> None:
        """Do nothing: in a callback the client takes the partitions."""

    def committed(
        self, places: list[TopicPartition], timeout: float
    ) -> list[TopicPartition]:
        return places


@pytest.mark.parametrize("leave", [Membership.on_lost, Membership.on_revoked])
def test_while_partitions_move_none_is_paused_or_resumed(
    thread: ConsumerThread, leave: t.Any
) -> None:
    """A worker once went silent: the call in the callback never returned."""
    member, known = thread._membership, thread._assignment.partitions
    asked: t.Any = Moving()
    places = [TopicPartition("orders", 0)]
    member.on_assigned(asked, places)
    (one,) = known.values()
    one.paused = True
    leave(member, asked, places)
    member.on_assigned(asked, places)
    (again,) = known.values()
    assert one.gone
    # So the next look, outside of all callbacks, resumes it.
    assert again.paused is None


def test_a_refusal_ends_the_thread(thread: ConsumerThread, shared: SharedState) -> None:
    thread._on_error(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    assert isinstance(shared.error, BrokerRefused)


def test_an_error_is_logged_once(thread: ConsumerThread, shared: SharedState) -> None:
    for _ in range(3):
        thread._on_error(KafkaError(KafkaError._TRANSPORT))
        thread._on_error(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    assert len(shared.log_lines) == 2
    assert "flask qconsume declare" in shared.log_lines[1][1]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KafkaError(KafkaError._AUTHENTICATION), BrokerRefused),
        (KafkaException(KafkaError(KafkaError._TIMED_OUT)), BrokerUnavailable),
        (KafkaError(KafkaError._FATAL), BrokerError),
        (ValueError("x"), BrokerError),
    ],
)
def test_errors_of_the_client_are_translated(
    error: t.Any, kind: type[Exception]
) -> None:
    assert type(translate_error(error)) is kind


def test_a_refusal_is_told_from_an_outage() -> None:
    assert is_refusal(KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED))
    assert not is_refusal(KafkaError(KafkaError._TRANSPORT))
