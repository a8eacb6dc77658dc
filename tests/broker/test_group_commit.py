"""One caller sends the batches of all callers that wait."""

from __future__ import annotations

import time
import typing as t

import gevent
import pytest
from gevent.event import Event

from flask_qconsume.broker.group_commit import CallerBatch
from flask_qconsume.broker.group_commit import GroupCommit
from flask_qconsume.broker.group_commit import Send


class Sending:
    """A round trip that ends when the test sets ``answer``."""

    def __init__(self) -> None:
        self.groups: list[list[CallerBatch]] = []
        self.begun = Event()
        self.answer = Event()

    def __call__(self, group: t.Sequence[CallerBatch]) -> None:
        self.groups.append(list(group))
        self.begun.set()
        self.answer.wait()


def spawn_submits(
    commit: GroupCommit,
    send: Send,
    batches: t.Iterable[CallerBatch],
    timeout: float = 30,
) -> list[gevent.Greenlet]:
    deadline = time.monotonic() + timeout
    return [gevent.spawn(commit.submit, batch, send, deadline) for batch in batches]


def test_a_single_batch_is_sent_at_once() -> None:
    sending, batch = Sending(), CallerBatch(1)
    sending.answer.set()
    GroupCommit(1).submit(batch, sending, time.monotonic() + 30)

    assert sending.groups == [[batch]]
    assert batch.served
    assert not batch.doubtful


def test_batches_submitted_during_a_round_trip_go_together_in_the_next() -> None:
    commit, sending = GroupCommit(1), Sending()
    first, *others = (CallerBatch(1) for _ in range(50))
    leading = spawn_submits(commit, sending, [first])
    sending.begun.wait()
    following = spawn_submits(commit, sending, others)
    gevent.sleep(0)
    sending.answer.set()
    gevent.joinall(leading + following, timeout=30, raise_error=True)

    assert sending.groups == [[first], others]
    assert all(batch.served for batch in others)


def test_so_many_lead_as_may() -> None:
    commit, sending = GroupCommit(2), Sending()
    first, second, third = (CallerBatch(1) for _ in range(3))
    running = spawn_submits(commit, sending, [first])
    sending.begun.wait()
    sending.begun.clear()
    running += spawn_submits(commit, sending, [second])
    sending.begun.wait()
    running += spawn_submits(commit, sending, [third])
    gevent.sleep(0)

    assert sending.groups == [[first], [second]]
    sending.answer.set()
    gevent.joinall(running, timeout=30, raise_error=True)
    assert sending.groups == [[first], [second], [third]]


def test_a_caller_whose_batch_is_being_sent_does_not_lead() -> None:
    """It would go round and round, and never let the answer come."""
    commit, slow, quick = GroupCommit(2), Sending(), Sending()
    running = spawn_submits(commit, quick, [CallerBatch(1), CallerBatch(1)])
    quick.begun.wait()
    batches = [CallerBatch(1) for _ in range(3)]
    running += spawn_submits(commit, slow, batches[:2])
    gevent.sleep(0)
    quick.answer.set()
    # Two of the three begin to send, and one of them finds no batch left.
    running += spawn_submits(commit, slow, batches[2:])
    slow.begun.wait()
    gevent.joinall(running[:2], timeout=30, raise_error=True)
    gevent.sleep(0)

    assert slow.groups == [batches]
    slow.answer.set()
    gevent.joinall(running, timeout=30, raise_error=True)
    assert all(batch.served for batch in batches)


def test_a_group_has_a_limited_number_of_messages() -> None:
    commit, sending = GroupCommit(1), Sending()
    batches = [
        CallerBatch(1),
        CallerBatch(150),
        CallerBatch(49),
        CallerBatch(1_000),
        CallerBatch(1),
        CallerBatch(1),
    ]
    running = spawn_submits(commit, sending, batches[:1])
    sending.begun.wait()
    running += spawn_submits(commit, sending, batches[1:])
    gevent.sleep(0)
    sending.answer.set()
    gevent.joinall(running, timeout=30, raise_error=True)

    assert sending.groups == [batches[:1], batches[1:3], batches[3:4], batches[4:]]


def test_an_interrupted_leader_leaves_its_group_in_doubt() -> None:
    """They are served all the same, and know that it may have been twice."""
    commit, sending = GroupCommit(1), Sending()
    first, leader, follower = (CallerBatch(1) for _ in range(3))
    running = spawn_submits(commit, sending, [first])
    sending.begun.wait()
    sending.begun.clear()
    killed, other = spawn_submits(commit, sending, [leader, follower])
    gevent.sleep(0)
    sending.answer.set()
    running[0].get(timeout=30)
    sending.answer.clear()
    sending.begun.wait()
    killed.kill()
    other.join(timeout=30)

    assert sending.groups == [[first], [leader, follower]]
    assert follower.served
    assert follower.doubtful
    assert not first.doubtful


def test_an_error_is_raised_by_the_leader() -> None:
    def fail(group: t.Sequence[CallerBatch]) -> None:
        raise OSError("told to fail")

    commit, batch = GroupCommit(1), CallerBatch(1)
    with pytest.raises(OSError, match="told to fail"):
        commit.submit(batch, fail, time.monotonic() + 30)
    sending = Sending()
    sending.answer.set()
    commit.submit(batch, sending, time.monotonic() + 30)

    assert sending.groups == [[batch]]


def test_a_caller_stops_waiting_at_its_deadline() -> None:
    commit, sending = GroupCommit(1), Sending()
    leading = spawn_submits(commit, sending, [CallerBatch(1)])
    sending.begun.wait()
    late = CallerBatch(1)
    commit.submit(late, sending, time.monotonic() + 0.05)

    assert not late.served
    assert not late.doubtful
    sending.answer.set()
    gevent.joinall(leading, timeout=30, raise_error=True)
    assert late not in sending.groups[-1]


def test_a_batch_whose_deadline_passes_while_it_is_sent_is_in_doubt() -> None:
    commit, sending = GroupCommit(1), Sending()
    first, leader, late = (CallerBatch(1) for _ in range(3))
    running = spawn_submits(commit, sending, [first])
    sending.begun.wait()
    sending.begun.clear()
    running += spawn_submits(commit, sending, [leader])
    short = spawn_submits(commit, sending, [late], timeout=0.2)
    gevent.sleep(0)
    answer, sending.answer = sending.answer, Event()
    answer.set()
    sending.begun.wait()
    short[0].get(timeout=30)

    assert late.doubtful
    sending.answer.set()
    gevent.joinall(running, timeout=30, raise_error=True)


def test_a_crowd_is_served_once_each() -> None:
    served: list[CallerBatch] = []

    def send(group: t.Sequence[CallerBatch]) -> None:
        gevent.sleep(0)
        served.extend(group)

    commit, batches = GroupCommit(2), [CallerBatch(1) for _ in range(1_000)]
    gevent.joinall(spawn_submits(commit, send, batches), timeout=60, raise_error=True)

    assert len(served) == len(set(served)) == 1_000
