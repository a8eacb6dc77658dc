"""Waiting for reports: many at once on one hub, in many threads, and cut short."""

from __future__ import annotations

import time
import typing as t

import gevent
import pytest

from flask_qconsume import PublishTimeout
from flask_qconsume.brokers.kafka.client.delivery_reports import PendingReports
from flask_qconsume.brokers.kafka.client.delivery_reports import ReportListener
from flask_qconsume.native_threads import NativeThread

from ....harness.scripts import run_script
from ....waiting import wait_for


@pytest.fixture
def ear() -> t.Iterator[ReportListener]:
    it = ReportListener()
    yield it
    it.close()


def waiting(ear: ReportListener, number: int, seconds: float = 10.0) -> list[t.Any]:
    """Batches of one record each, and the greenlets that wait for them."""
    batches = [PendingReports(1, ear) for _ in range(number)]
    deadline = time.monotonic() + seconds
    jobs = [gevent.spawn(batch.wait, deadline) for batch in batches]
    gevent.sleep(0)
    return list(zip(batches, jobs, strict=True))


def reported(*batches: PendingReports) -> None:
    """Report them from a native thread, as the client does."""
    done = [(batch, None) for batch in batches]
    thread = NativeThread(lambda: [b.report(0, e) for b, e in done], "reports").start()
    assert thread.join(10)


@pytest.mark.parametrize("backwards", [False, True])
def test_each_is_woken_when_its_own_is_reported(
    ear: ReportListener, backwards: bool
) -> None:
    found = waiting(ear, 5)
    for batch, job in reversed(found) if backwards else found:
        assert not job.ready()
        reported(batch)
        job.join(5)
        assert job.successful()
        assert batch.errors == [None]
    assert ear.idle


def test_who_listens_may_be_killed(ear: ReportListener) -> None:
    (_, listener), (batch, job), (last, last_job) = waiting(ear, 3)
    listener.kill()
    reported(batch)
    job.join(5)
    assert job.successful()
    assert not last_job.ready()
    reported(last)
    last_job.join(5)
    assert last_job.successful()


def test_what_is_not_reported_in_time_is_a_timeout_of_its_own(
    ear: ReportListener,
) -> None:
    (first, job), (second, other) = waiting(ear, 2, seconds=0.05)
    gevent.joinall([job, other], timeout=5)
    assert job.successful() and other.successful()
    (error,), (another,) = first.errors, second.errors
    assert isinstance(error, PublishTimeout)
    assert error is not another
    # It comes after all: nobody minds.
    reported(first)
    assert first.errors == [None]


def test_what_was_reported_or_never_sent_is_not_waited_for(ear: ReportListener) -> None:
    batch = PendingReports(2, ear)
    error = ValueError("no")
    batch.failed(0, error)
    batch.report(1, None)
    batch.wait(time.monotonic())
    assert batch.errors == [error, None]


def test_an_ear_is_closed_once_nobody_waits() -> None:
    ear = ReportListener()
    ((batch, job),) = waiting(ear, 1)
    ear.close()
    gevent.sleep(0)
    assert not job.ready()
    reported(batch)
    job.join(5)
    assert job.successful()
    wait_for(lambda: ear.idle, 5)


class Overheard(ReportListener):
    """Somebody else hears what is ours just before we listen, as threads may."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = PendingReports(1, self)

    def _begin(self) -> bool:
        reported(self.batch)
        self._bell.wait(5)
        self._heard.clear()
        return super()._begin()


def test_what_somebody_else_has_heard_is_not_waited_for() -> None:
    ear = Overheard()
    began = time.monotonic()
    ear.batch.wait(began + 10)
    assert time.monotonic() - began < 5
    assert ear.batch.errors == [None]
    ear.close()


def test_threads_without_any_hub_wait_as_well() -> None:
    script = """
import sys, threading, time
before = {"gevent"} & set(sys.modules)  # Where coverage measures, it imports it.
from collections import deque
from flask_qconsume.brokers.kafka.client.delivery_reports import PendingReports
from flask_qconsume.brokers.kafka.client.delivery_reports import ReportListener
ear, sent, late = ReportListener(), deque(), []
def publish():
    for _ in range(200):
        batch = PendingReports(1, ear)
        sent.append(batch)
        batch.wait(time.monotonic() + 20)
        late.extend(e for e in batch.errors if e)
def report():
    left = 8 * 200
    while left:
        while sent:
            sent.popleft().report(0, None)
            left -= 1
        time.sleep(0)
threads = [threading.Thread(target=f) for f in [publish] * 8 + [report]]
[t.start() for t in threads]
[t.join(30) for t in threads]
assert not any(t.is_alive() for t in threads)
assert {"gevent"} & set(sys.modules) == before
print(late, ear.idle)
ear.close()
"""
    done = run_script(script, "-W", "error")
    assert done.stdout.strip() == "[] True", done.stderr
