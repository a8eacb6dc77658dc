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


class Scene:
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
def scene() -> Scene:
    return Scene()


def test_while_the_broker_answers_all_are_let_through(scene: Scene) -> None:
    for _ in range(3):
        assert scene.publish() == [None]
        scene.later(3600)
    scene.broker.answer = Unroutable("no consumer would get it")
    for _ in range(3):
        assert scene.publish(2) == [scene.broker.answer] * 2
        scene.later(3600)


def test_it_opens_once_a_caller_has_failed_for_long(scene: Scene) -> None:
    scene.open()

    with pytest.raises(BrokerAway) as caught:
        scene.publish()
    assert str(caught.value) == (
        "Nothing was sent: memory has confirmed nothing for 10 s, so publishing fails"
        " at once ('QCONSUME_AWAY_AFTER'). It is tried again in 1.0 s. The last"
        " error: nobody listens"
    )
    assert isinstance(caught.value, BrokerUnavailable)
    assert caught.value.retry_after == 1
    assert scene.broker.asked == 1


def test_it_opens_while_a_caller_still_waits(scene: Scene) -> None:
    first = scene.waiting()
    scene.later(4.9)
    second = scene.waiting()
    scene.later(0.1)
    with pytest.raises(BrokerAway):
        scene.publish()
    scene.broker.may.set()
    assert first.get() == second.get() == [None]
    assert scene.publish() == [None]


def test_a_short_time_limit_counts_by_how_long_it_goes_on(scene: Scene) -> None:
    scene.broker.answer = PublishTimeout("not in time")
    for _ in range(5):
        assert scene.publish() == [scene.broker.answer]
        scene.later(1)
    assert scene.publish() == [scene.broker.answer]
    with pytest.raises(BrokerAway):
        scene.publish()


def test_one_alone_is_let_through_however_long_ago_the_last_one_failed(
    scene: Scene,
) -> None:
    scene.broker.answer = BrokerUnavailable("restarting")
    scene.publish()
    scene.later(3600)
    scene.broker.answer = None
    assert scene.publish() == [None]


def test_while_a_batch_is_sent_callers_behind_it_prove_nothing(
    scene: Scene,
) -> None:
    batch, single = scene.waiting(100_000), scene.waiting()
    scene.later(9)
    other = scene.waiting()
    scene.broker.may.set()
    assert [batch.get(), single.get(), other.get()] == [
        [None] * 100_000,
        [None],
        [None],
    ]


def test_a_batch_that_failed_does(scene: Scene) -> None:
    scene.broker.answer = BrokerUnavailable("nobody listens")
    batch = scene.waiting(3)
    scene.later(10)
    scene.broker.may.set()
    batch.join()
    with pytest.raises(BrokerAway):
        scene.publish()


def test_one_at_a_time_tries_and_the_first_answer_closes_it(scene: Scene) -> None:
    scene.open()
    scene.later(1)
    trying = scene.waiting()
    assert scene.broker.asked == 2
    with pytest.raises(BrokerAway, match="just now, by another caller") as caught:
        scene.publish()
    assert caught.value.retry_after == 1
    scene.broker.answer = None
    scene.broker.may.set()

    assert trying.get() == [None]
    assert [scene.publish() for _ in range(10)] == [[None]] * 10


def test_after_an_attempt_that_failed_there_is_a_pause(scene: Scene) -> None:
    scene.open()
    scene.later(1)
    assert isinstance(scene.publish()[0], BrokerUnavailable)
    with pytest.raises(BrokerAway):
        scene.publish()
    scene.later(1)
    assert isinstance(scene.publish()[0], BrokerUnavailable)
    assert scene.broker.asked == 3


def test_whoever_waited_since_before_closes_it_too(scene: Scene) -> None:
    waiting = scene.waiting()
    scene.later(5)
    with pytest.raises(BrokerAway):
        scene.publish()
    scene.broker.may.set()
    assert waiting.get() == [None]
    assert scene.publish() == [None]


def test_an_attempt_that_is_interrupted_lets_the_next_one_try(scene: Scene) -> None:
    scene.open()
    scene.later(1)
    trying = scene.waiting()
    trying.kill()
    scene.later(1)
    scene.broker.answer = None
    scene.broker.may.set()
    assert scene.publish() == [None]


@pytest.mark.parametrize("raised", [UnsupportedByBroker("no"), gevent.GreenletExit()])
def test_what_says_nothing_about_the_broker_changes_nothing(
    scene: Scene, raised: BaseException
) -> None:
    scene.broker.raises = raised
    for _ in range(3):
        with pytest.raises(type(raised)):
            scene.publish()
        scene.later(10)
    scene.broker.raises = None
    assert scene.publish() == [None]


def test_what_is_raised_counts_as_what_is_returned(scene: Scene) -> None:
    scene.broker.raises = BrokerUnavailable("hangs")
    waiting = scene.waiting()
    scene.later(10)
    scene.broker.may.set()
    with pytest.raises(BrokerUnavailable, match="hangs"):
        waiting.get()
    with pytest.raises(BrokerAway, match="hangs"):
        scene.publish()


def test_nothing_to_publish_asks_no_broker(scene: Scene) -> None:
    scene.open()
    assert scene.publish(0) == []
    assert scene.broker.asked == 1


def test_opening_and_closing_are_logged_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.broker.answer = BrokerUnavailable("gone\nfor lunch")
    with caplog.at_level(logging.INFO, "flask_qconsume"):
        scene.open()
        for _ in range(3):
            with pytest.raises(BrokerAway):
                scene.publish()
        scene.later(2)
        scene.broker.answer = None
        scene.publish()
    opened, closed = (record.getMessage() for record in caplog.records)
    assert opened.startswith("memory has confirmed nothing for 10 s: publishing fails")
    assert closed == "memory answers again after 12 s"


@pytest.mark.process
def test_a_child_begins_anew(scene: Scene) -> None:
    """Callers that wait in the parent do not wait in the child."""
    scene.open()
    scene.broker.answer = None
    child = os.fork()
    if not child:
        os._exit(0 if scene.publish() == [None] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(BrokerAway):
        scene.publish()
