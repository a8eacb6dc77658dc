"""Which records of a partition may be handed out, and what is committed of them."""

from __future__ import annotations

from flask_qconsume.brokers.kafka.client.offsets import CommitMetadata
from flask_qconsume.brokers.kafka.client.offsets import CommitState
from flask_qconsume.brokers.kafka.client.offsets import OffsetTracker
from flask_qconsume.brokers.kafka.client.offsets import encode_metadata
from flask_qconsume.brokers.kafka.client.partition import AssignedPartition

from .fakes import filled
from .fakes import new_partition

EVERYTHING = 10**6


def test_what_is_committed_as_done_is_known() -> None:
    one = AssignedPartition("orders", 0, OffsetTracker())
    assert not one.has_committed(5)
    one.committed = CommitState(
        5, encode_metadata(5, CommitMetadata(upto=9, done=[(6, 8)]))
    )
    assert [one.has_committed(n) for n in range(3, 10)] == [
        *(True, True, False),
        *(True, True, False, False),
    ]
    one.gone = True  # Nothing is ever committed for it again, by us.
    assert one.has_committed(9)


def test_what_is_not_due_is_not_marked() -> None:
    one = filled(new_partition(due=lambda record: float(record.offset())), 5)
    assert one.mark(EVERYTHING, 2.0) == 3
    assert (one.unsettled, len(one.buffer), one.buffered_bytes) == (3, 2, 20)
    assert one.mark(EVERYTHING, 2.5) == 0
    assert one.mark(1, 9.0) == 1


def test_a_partition_without_progress_is_stuck_until_it_moves() -> None:
    one = filled(new_partition(), 500)
    one.update_stuck(1.0)
    one.update_stuck(1.5)
    assert not one.is_stuck
    one.update_stuck(2.5)
    assert one.is_stuck
    one.mark(300, 0.0)
    one.update_stuck(3.0)
    assert one.is_stuck
    one.mark(150, 0.0)
    one.update_stuck(3.5)
    assert not one.is_stuck
    assert "orders/0" in repr(one)


def test_a_partition_with_few_records_is_never_stuck() -> None:
    one = filled(new_partition(), 20)
    one.update_stuck(1.0)
    one.update_stuck(100.0)
    assert not one.is_stuck
