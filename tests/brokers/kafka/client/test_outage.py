"""How long a consumer waits for a Kafka that does not answer."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import KafkaException

from flask_qconsume.brokers.kafka.client.outage import Outage


class Scene:
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
def scene() -> Scene:
    return Scene()


def test_nothing_is_asked_while_connections_are_there(scene: Scene) -> None:
    assert not scene.check()
    assert scene.asked == 0


def test_connections_that_were_only_idle_are_no_outage(scene: Scene) -> None:
    scene.there = True
    scene.outage.begin()
    assert not scene.check()
    assert not scene.outage.is_confirmed
    assert not scene.check()
    assert scene.asked == 1


def test_its_beginning_and_its_end_are_news(scene: Scene) -> None:
    scene.outage.begin()
    assert scene.check()
    assert scene.outage.is_confirmed
    scene.outage.begin()
    assert not scene.check()
    scene.there = True
    assert scene.check()
    assert not scene.outage.is_confirmed
    assert not scene.check()
    assert scene.asked == 3


def test_it_is_not_asked_in_every_round(scene: Scene) -> None:
    scene.outage.begin()
    for _ in range(8):
        scene.check(0.125)
    assert scene.asked == 2


def test_it_is_over_with_the_session(scene: Scene) -> None:
    scene.outage.begin()
    for _ in range(19):
        scene.check()
    with pytest.raises(KafkaException):
        scene.check()
    assert scene.now == 110


def test_the_next_outage_has_a_whole_session(scene: Scene) -> None:
    scene.outage.begin()
    scene.check(9)
    scene.there = True
    scene.check()
    scene.there = False
    scene.outage.begin()
    assert scene.check(9)
    assert scene.outage.is_confirmed
