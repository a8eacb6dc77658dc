"""When a client counts as one that has stopped confirming."""

from __future__ import annotations

import pytest

from flask_qconsume.brokers.kafka.client.producer import UnconfirmedFor


class Scene:
    """A limit of fifteen seconds, on a virtual clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.unconfirmed = UnconfirmedFor(15.0, lambda: self.now)

    def is_too_long(self, later: float, timeout: float = 5.0) -> bool:
        self.now += later
        return self.unconfirmed.is_too_long(timeout)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_client_without_records_is_healthy(scene: Scene) -> None:
    assert not scene.is_too_long(later=3_600)


def test_it_counts_from_the_first_record_without_a_confirmation(scene: Scene) -> None:
    scene.unconfirmed.note_sent()
    assert not scene.is_too_long(later=10)
    scene.unconfirmed.note_sent()
    assert scene.is_too_long(later=5)


def test_a_confirmation_ends_it_however_long_nothing_is_sent_then(scene: Scene) -> None:
    scene.unconfirmed.note_sent()
    scene.unconfirmed.reset()
    assert not scene.is_too_long(later=3_600)
    scene.unconfirmed.note_sent()
    assert not scene.is_too_long(later=14)


def test_a_longer_send_is_waited_for_twice(scene: Scene) -> None:
    scene.unconfirmed.note_sent()
    assert not scene.is_too_long(later=59, timeout=30.0)
    assert scene.is_too_long(later=1, timeout=30.0)
