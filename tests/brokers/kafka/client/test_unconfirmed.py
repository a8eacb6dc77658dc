"""When a client counts as one that has stopped confirming."""

from __future__ import annotations

import pytest

from flask_qconsume.brokers.kafka.client.producer import UnconfirmedFor


class ClockedWait:
    """A limit of fifteen seconds, on a virtual clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.unconfirmed = UnconfirmedFor(15.0, lambda: self.now)

    def is_too_long(self, later: float, timeout: float = 5.0) -> bool:
        self.now += later
        return self.unconfirmed.is_too_long(timeout)


@pytest.fixture
def clocked_wait() -> ClockedWait:
    return ClockedWait()


def test_a_client_without_records_is_healthy(clocked_wait: ClockedWait) -> None:
    assert not clocked_wait.is_too_long(later=3_600)


def test_it_counts_from_the_first_record_without_a_confirmation(
    clocked_wait: ClockedWait,
) -> None:
    clocked_wait.unconfirmed.note_sent()
    assert not clocked_wait.is_too_long(later=10)
    clocked_wait.unconfirmed.note_sent()
    assert clocked_wait.is_too_long(later=5)


def test_a_confirmation_ends_it_however_long_nothing_is_sent_then(
    clocked_wait: ClockedWait,
) -> None:
    clocked_wait.unconfirmed.note_sent()
    clocked_wait.unconfirmed.reset()
    assert not clocked_wait.is_too_long(later=3_600)
    clocked_wait.unconfirmed.note_sent()
    assert not clocked_wait.is_too_long(later=14)


def test_a_longer_send_is_waited_for_twice(clocked_wait: ClockedWait) -> None:
    clocked_wait.unconfirmed.note_sent()
    assert not clocked_wait.is_too_long(later=59, timeout=30.0)
    assert clocked_wait.is_too_long(later=1, timeout=30.0)
