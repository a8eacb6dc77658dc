"""Those who publish at the same time: each is served, by one of them."""

from __future__ import annotations

import time
import typing as t

import gevent
import pytest
from gevent.event import Event

from flask_qconsume.brokers.redis.group_commit import Lead
from flask_qconsume.brokers.redis.group_commit import Meeting
from flask_qconsume.brokers.redis.group_commit import Turn


class Sending:
    """Sends when it is let: a round trip that ends when the test says so."""

    def __init__(self) -> None:
        self.groups: list[list[Turn]] = []
        self.begun = Event()
        self.answer = Event()

    def __call__(self, group: t.Sequence[Turn]) -> None:
        self.groups.append(list(group))
        self.begun.set()
        self.answer.wait()


def attending(
    meeting: Meeting, lead: Lead, turns: t.Iterable[Turn], timeout: float = 30
) -> list[gevent.Greenlet]:
    deadline = time.monotonic() + timeout
    return [gevent.spawn(meeting.attend, turn, lead, deadline) for turn in turns]


def test_who_is_alone_goes_at_once() -> None:
    sending, turn = Sending(), Turn(1)
    sending.answer.set()
    Meeting(1).attend(turn, sending, time.monotonic() + 30)

    assert sending.groups == [[turn]]
    assert turn.served
    assert not turn.doubtful


def test_who_comes_while_somebody_sends_goes_with_all_the_others() -> None:
    meeting, sending = Meeting(1), Sending()
    first, *others = (Turn(1) for _ in range(50))
    leading = attending(meeting, sending, [first])
    sending.begun.wait()
    following = attending(meeting, sending, others)
    gevent.sleep(0)
    sending.answer.set()
    gevent.joinall(leading + following, timeout=30, raise_error=True)

    assert sending.groups == [[first], others]
    assert all(turn.served for turn in others)


def test_so_many_lead_as_may() -> None:
    meeting, sending = Meeting(2), Sending()
    first, second, third = (Turn(1) for _ in range(3))
    running = attending(meeting, sending, [first])
    sending.begun.wait()
    sending.begun.clear()
    running += attending(meeting, sending, [second])
    sending.begun.wait()
    running += attending(meeting, sending, [third])
    gevent.sleep(0)

    assert sending.groups == [[first], [second]]
    sending.answer.set()
    gevent.joinall(running, timeout=30, raise_error=True)
    assert sending.groups == [[first], [second], [third]]


def test_who_is_being_served_sleeps_though_another_one_may_lead() -> None:
    """It would go round and round, and never let the answer come."""
    meeting, slow, quick = Meeting(2), Sending(), Sending()
    running = attending(meeting, quick, [Turn(1), Turn(1)])
    quick.begun.wait()
    turns = [Turn(1) for _ in range(3)]
    running += attending(meeting, slow, turns[:2])
    gevent.sleep(0)
    quick.answer.set()
    # Two of the three begin to lead, and one of them finds nobody left.
    running += attending(meeting, slow, turns[2:])
    slow.begun.wait()
    gevent.joinall(running[:2], timeout=30, raise_error=True)
    gevent.sleep(0)

    assert slow.groups == [turns]
    slow.answer.set()
    gevent.joinall(running, timeout=30, raise_error=True)
    assert all(turn.served for turn in turns)


def test_not_more_go_together_than_is_good() -> None:
    meeting, sending = Meeting(1), Sending()
    turns = [Turn(1), Turn(150), Turn(49), Turn(1_000), Turn(1), Turn(1)]
    running = attending(meeting, sending, turns[:1])
    sending.begun.wait()
    running += attending(meeting, sending, turns[1:])
    gevent.sleep(0)
    sending.answer.set()
    gevent.joinall(running, timeout=30, raise_error=True)

    assert sending.groups == [turns[:1], turns[1:3], turns[3:4], turns[4:]]


def test_who_leads_and_is_interrupted_leaves_the_others_in_doubt() -> None:
    """They are served all the same, and know that it may have been twice."""
    meeting, sending = Meeting(1), Sending()
    first, leader, follower = (Turn(1) for _ in range(3))
    running = attending(meeting, sending, [first])
    sending.begun.wait()
    sending.begun.clear()
    killed, other = attending(meeting, sending, [leader, follower])
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


def test_an_error_is_for_who_leads() -> None:
    def fail(group: t.Sequence[Turn]) -> None:
        raise OSError("told to fail")

    meeting, turn = Meeting(1), Turn(1)
    with pytest.raises(OSError, match="told to fail"):
        meeting.attend(turn, fail, time.monotonic() + 30)
    sending = Sending()
    sending.answer.set()
    meeting.attend(turn, sending, time.monotonic() + 30)

    assert sending.groups == [[turn]]


def test_whose_time_is_over_waits_no_longer() -> None:
    meeting, sending = Meeting(1), Sending()
    leading = attending(meeting, sending, [Turn(1)])
    sending.begun.wait()
    late = Turn(1)
    meeting.attend(late, sending, time.monotonic() + 0.05)

    assert not late.served
    assert not late.doubtful
    sending.answer.set()
    gevent.joinall(leading, timeout=30, raise_error=True)
    assert late not in sending.groups[-1]


def test_whose_time_is_over_while_it_is_sent_for_is_in_doubt() -> None:
    meeting, sending = Meeting(1), Sending()
    first, leader, late = (Turn(1) for _ in range(3))
    running = attending(meeting, sending, [first])
    sending.begun.wait()
    sending.begun.clear()
    running += attending(meeting, sending, [leader])
    short = attending(meeting, sending, [late], timeout=0.2)
    gevent.sleep(0)
    answer, sending.answer = sending.answer, Event()
    answer.set()
    sending.begun.wait()
    short[0].get(timeout=30)

    assert late.doubtful
    sending.answer.set()
    gevent.joinall(running, timeout=30, raise_error=True)


def test_a_crowd_is_served_once_each() -> None:
    served: list[Turn] = []

    def lead(group: t.Sequence[Turn]) -> None:
        gevent.sleep(0)
        served.extend(group)

    meeting, turns = Meeting(2), [Turn(1) for _ in range(1_000)]
    gevent.joinall(attending(meeting, lead, turns), timeout=60, raise_error=True)

    assert len(served) == len(set(served)) == 1_000
