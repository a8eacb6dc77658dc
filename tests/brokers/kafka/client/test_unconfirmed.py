"""When a client of Kafka's counts as silent."""

from __future__ import annotations

import pytest

from flask_qconsume.brokers.kafka.client.producer import UnconfirmedFor


class Scene:
    """A patience of fifteen seconds, on a clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.unconfirmed = UnconfirmedFor(15.0, lambda: self.now)

    def is_too_long(self, later: float, timeout: float = 5.0) -> bool:
        self.now += later
        return self.unconfirmed.is_too_long(timeout)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_who_was_given_nothing_is_not_silent(scene: Scene) -> None:
    assert not scene.is_too_long(later=3_600)


def test_it_lasts_from_the_first_that_is_not_confirmed(scene: Scene) -> None:
    scene.unconfirmed.note_sent()
    assert not scene.is_too_long(later=10)
    scene.unconfirmed.note_sent()
    assert scene.is_too_long(later=5)


def test_a_confirmation_ends_it_however_long_nobody_sends_then(scene: Scene) -> None:
    scene.unconfirmed.note_sent()
    scene.unconfirmed.reset()
    assert not scene.is_too_long(later=3_600)
    scene.unconfirmed.note_sent()
    assert not scene.is_too_long(later=14)


def test_a_longer_send_is_waited_for_twice(scene: Scene) -> None:
    scene.unconfirmed.note_sent()
    assert not scene.is_too_long(later=59, timeout=30.0)
    assert scene.is_too_long(later=1, timeout=30.0)
