"""The circuit breaker: when it opens, which attempts it admits, and when it closes."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import gevent
import pytest
from gevent.event import Event

from flask_qconsume.broker.circuit_breaker import CircuitBreaker
from flask_qconsume.broker.topology import Topology
from flask_qconsume.brokers.memory import Memory
from flask_qconsume.errors import BrokerAway
from flask_qconsume.errors import BrokerUnavailable
from flask_qconsume.errors import PublishTimeout
from flask_qconsume.errors import Unroutable
from flask_qconsume.errors import UnsupportedByBroker
from flask_qconsume.message import Outgoing
from flask_qconsume.settings import Settings

from ..brokers.test_memory import Clock

MESSAGE = Outgoing("billing", b"1")


class Told(Memory):
    """A broker that gives the answer that a test sets, once the test allows it."""

    def __init__(self) -> None:
        settings = Settings.from_config({"QCONSUME_BROKER_URL": "memory://"})
        super().__init__(settings, Topology("shop", ()))
        self.answer: Exception | None = None
        self.raises: BaseException | None = None
        self.may = Event()
        self.may.set()
        self.asked = 0

    def publish(
        self, messages: Sequence[Outgoing], timeout: float
    ) -> list[Exception | None]:
        self.asked += 1
        self.may.wait()
        if self.raises is not None:
            raise self.raises
        return [self.answer] * len(messages)


class ClockedCircuit:
    """A circuit that opens after 5 s on a virtual clock; the pauses last 1 s."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.broker = Told()
        self.circuit = CircuitBreaker(5.0, self.clock, lambda: 0.5)

    def publish(self, count: int = 1) -> list[Exception | None]:
        return self.circuit.publish(self.broker, [MESSAGE] * count, 10.0)

    def waiting(self, count: int = 1) -> gevent.Greenlet:
        """Start a caller that publishes, and waits until the broker may answer."""
        self.broker.may.clear()
        greenlet = gevent.spawn(self.publish, count)
        gevent.sleep(0)
        return greenlet

    def later(self, seconds: float) -> None:
        self.clock.now += seconds

    def open(self) -> None:
        """One caller waits for ten seconds, and gets an error."""
        self.broker.answer = BrokerUnavailable("nobody listens")
        waiting = self.waiting()
        self.later(10)
        self.broker.may.set()
        assert waiting.get() == [self.broker.answer]


@pytest.fixture
def clocked_circuit() -> ClockedCircuit:
    return ClockedCircuit()


def test_while_the_broker_answers_all_are_let_through(
    clocked_circuit: ClockedCircuit,
) -> None:
    for _ in range(3):
        assert clocked_circuit.publish() == [None]
        clocked_circuit.later(3600)
    clocked_circuit.broker.answer = Unroutable("no consumer would get it")
    for _ in range(3):
        assert clocked_circuit.publish(2) == [clocked_circuit.broker.answer] * 2
        clocked_circuit.later(3600)


def test_it_opens_once_a_caller_has_failed_for_long(
    clocked_circuit: ClockedCircuit,
) -> None:
    clocked_circuit.open()

    with pytest.raises(BrokerAway) as caught:
        clocked_circuit.publish()
    assert str(caught.value) == (
        "Nothing was sent: memory has confirmed nothing for 10 s, so publishing fails"
        " at once ('QCONSUME_AWAY_AFTER'). It is tried again in 1.0 s. The last"
        " error: nobody listens"
    )
    assert isinstance(caught.value, BrokerUnavailable)
    assert caught.value.retry_after == 1
    assert clocked_circuit.broker.asked == 1


def test_it_opens_while_a_caller_still_waits(clocked_circuit: ClockedCircuit) -> None:
    first = clocked_circuit.waiting()
    clocked_circuit.later(4.9)
    second = clocked_circuit.waiting()
    clocked_circuit.later(0.1)
    with pytest.raises(BrokerAway):
        clocked_circuit.publish()
    clocked_circuit.broker.may.set()
    assert first.get() == second.get() == [None]
    assert clocked_circuit.publish() == [None]


def test_a_short_time_limit_counts_by_how_long_it_goes_on(
    clocked_circuit: ClockedCircuit,
) -> None:
    clocked_circuit.broker.answer = PublishTimeout("not in time")
    for _ in range(5):
        assert clocked_circuit.publish() == [clocked_circuit.broker.answer]
        clocked_circuit.later(1)
    assert clocked_circuit.publish() == [clocked_circuit.broker.answer]
    with pytest.raises(BrokerAway):
        clocked_circuit.publish()


def test_one_alone_is_let_through_however_long_ago_the_last_one_failed(
    clocked_circuit: ClockedCircuit,
) -> None:
    clocked_circuit.broker.answer = BrokerUnavailable("restarting")
    clocked_circuit.publish()
    clocked_circuit.later(3600)
    clocked_circuit.broker.answer = None
    assert clocked_circuit.publish() == [None]


def test_while_a_batch_is_sent_callers_behind_it_prove_nothing(
    clocked_circuit: ClockedCircuit,
) -> None:
    batch, single = clocked_circuit.waiting(100_000), clocked_circuit.waiting()
    clocked_circuit.later(9)
    other = clocked_circuit.waiting()
    clocked_circuit.broker.may.set()
    assert [batch.get(), single.get(), other.get()] == [
        [None] * 100_000,
        [None],
        [None],
    ]


def test_a_batch_that_failed_does(clocked_circuit: ClockedCircuit) -> None:
    clocked_circuit.broker.answer = BrokerUnavailable("nobody listens")
    batch = clocked_circuit.waiting(3)
    clocked_circuit.later(10)
    clocked_circuit.broker.may.set()
    batch.join()
    with pytest.raises(BrokerAway):
        clocked_circuit.publish()


def test_one_at_a_time_tries_and_the_first_answer_closes_it(
    clocked_circuit: ClockedCircuit,
) -> None:
    clocked_circuit.open()
    clocked_circuit.later(1)
    trying = clocked_circuit.waiting()
    assert clocked_circuit.broker.asked == 2
    with pytest.raises(BrokerAway, match="just now, by another caller") as caught:
        clocked_circuit.publish()
    assert caught.value.retry_after == 1
    clocked_circuit.broker.answer = None
    clocked_circuit.broker.may.set()

    assert trying.get() == [None]
    assert [clocked_circuit.publish() for _ in range(10)] == [[None]] * 10


def test_after_an_attempt_that_failed_there_is_a_pause(
    clocked_circuit: ClockedCircuit,
) -> None:
    clocked_circuit.open()
    clocked_circuit.later(1)
    assert isinstance(clocked_circuit.publish()[0], BrokerUnavailable)
    with pytest.raises(BrokerAway):
        clocked_circuit.publish()
    clocked_circuit.later(1)
    assert isinstance(clocked_circuit.publish()[0], BrokerUnavailable)
    assert clocked_circuit.broker.asked == 3


def test_whoever_waited_since_before_closes_it_too(
    clocked_circuit: ClockedCircuit,
) -> None:
    waiting = clocked_circuit.waiting()
    clocked_circuit.later(5)
    with pytest.raises(BrokerAway):
        clocked_circuit.publish()
    clocked_circuit.broker.may.set()
    assert waiting.get() == [None]
    assert clocked_circuit.publish() == [None]


def test_an_attempt_that_is_interrupted_lets_the_next_one_try(
    clocked_circuit: ClockedCircuit,
) -> None:
    clocked_circuit.open()
    clocked_circuit.later(1)
    trying = clocked_circuit.waiting()
    trying.kill()
    clocked_circuit.later(1)
    clocked_circuit.broker.answer = None
    clocked_circuit.broker.may.set()
    assert clocked_circuit.publish() == [None]


@pytest.mark.parametrize("raised", [UnsupportedByBroker("no"), gevent.GreenletExit()])
def test_what_says_nothing_about_the_broker_changes_nothing(
    clocked_circuit: ClockedCircuit, raised: BaseException
) -> None:
    clocked_circuit.broker.raises = raised
    for _ in range(3):
        with pytest.raises(type(raised)):
            clocked_circuit.publish()
        clocked_circuit.later(10)
    clocked_circuit.broker.raises = None
    assert clocked_circuit.publish() == [None]


def test_what_is_raised_counts_as_what_is_returned(
    clocked_circuit: ClockedCircuit,
) -> None:
    clocked_circuit.broker.raises = BrokerUnavailable("hangs")
    waiting = clocked_circuit.waiting()
    clocked_circuit.later(10)
    clocked_circuit.broker.may.set()
    with pytest.raises(BrokerUnavailable, match="hangs"):
        waiting.get()
    with pytest.raises(BrokerAway, match="hangs"):
        clocked_circuit.publish()


def test_nothing_to_publish_asks_no_broker(clocked_circuit: ClockedCircuit) -> None:
    clocked_circuit.open()
    assert clocked_circuit.publish(0) == []
    assert clocked_circuit.broker.asked == 1


def test_opening_and_closing_are_logged_once(
    clocked_circuit: ClockedCircuit, caplog: pytest.LogCaptureFixture
) -> None:
    clocked_circuit.broker.answer = BrokerUnavailable("gone\nfor lunch")
    with caplog.at_level(logging.INFO, "flask_qconsume"):
        clocked_circuit.open()
        for _ in range(3):
            with pytest.raises(BrokerAway):
                clocked_circuit.publish()
        clocked_circuit.later(2)
        clocked_circuit.broker.answer = None
        clocked_circuit.publish()
    opened, closed = (record.getMessage() for record in caplog.records)
    assert opened.startswith("memory has confirmed nothing for 10 s: publishing fails")
    assert closed == "memory answers again after 12 s"


@pytest.mark.process
def test_a_child_begins_anew(clocked_circuit: ClockedCircuit) -> None:
    """Callers that wait in the parent do not wait in the child."""
    clocked_circuit.open()
    clocked_circuit.broker.answer = None
    child = os.fork()
    if not child:
        os._exit(0 if clocked_circuit.publish() == [None] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(BrokerAway):
        clocked_circuit.publish()
