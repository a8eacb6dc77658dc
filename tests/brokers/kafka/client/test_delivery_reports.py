"""Callers that wait for reports: many on one hub, in many threads, with time limits."""

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
def listener() -> t.Iterator[ReportListener]:
    it = ReportListener()
    yield it
    it.close()


def waiting(
    listener: ReportListener, number: int, seconds: float = 10.0
) -> list[t.Any]:
    """Return reports of one record each, and the greenlets that wait for them."""
    batches = [PendingReports(1, listener) for _ in range(number)]
    deadline = time.monotonic() + seconds
    jobs = [gevent.spawn(reports.wait, deadline) for reports in batches]
    gevent.sleep(0)
    return list(zip(batches, jobs, strict=True))


def reported(*batches: PendingReports) -> None:
    """Report records from a native thread, as the client does."""
    done = [(reports, None) for reports in batches]
    thread = NativeThread(lambda: [b.report(0, e) for b, e in done], "reports").start()
    assert thread.join(10)


@pytest.mark.parametrize("backwards", [False, True])
def test_each_is_woken_when_its_own_is_reported(
    listener: ReportListener, backwards: bool
) -> None:
    found = waiting(listener, 5)
    for reports, job in reversed(found) if backwards else found:
        assert not job.ready()
        reported(reports)
        job.join(5)
        assert job.successful()
        assert reports.errors == [None]
    assert listener.is_idle


def test_the_leader_may_be_killed(listener: ReportListener) -> None:
    (_, leader), (reports, job), (last, last_job) = waiting(listener, 3)
    leader.kill()
    reported(reports)
    job.join(5)
    assert job.successful()
    assert not last_job.ready()
    reported(last)
    last_job.join(5)
    assert last_job.successful()


def test_what_is_not_reported_in_time_is_a_timeout_of_its_own(
    listener: ReportListener,
) -> None:
    (first, job), (second, other) = waiting(listener, 2, seconds=0.05)
    gevent.joinall([job, other], timeout=5)
    assert job.successful() and other.successful()
    (error,), (another,) = first.errors, second.errors
    assert isinstance(error, PublishTimeout)
    assert error is not another
    # A late report is harmless.
    reported(first)
    assert first.errors == [None]


def test_what_was_reported_or_never_sent_is_not_waited_for(
    listener: ReportListener,
) -> None:
    reports = PendingReports(2, listener)
    error = ValueError("no")
    reports.fail(0, error)
    reports.report(1, None)
    reports.wait(time.monotonic())
    assert reports.errors == [error, None]


def test_a_listener_is_closed_once_no_caller_waits() -> None:
    listener = ReportListener()
    ((reports, job),) = waiting(listener, 1)
    listener.close()
    gevent.sleep(0)
    assert not job.ready()
    reported(reports)
    job.join(5)
    assert job.successful()
    wait_for(lambda: listener.is_idle, 5)


class Overtaken(ReportListener):
    """The last leader takes our notification just before we lead, as threads may."""

    def __init__(self) -> None:
        super().__init__()
        self.reports = PendingReports(1, self)

    def _try_lead(self) -> bool:
        reported(self.reports)
        self._notifier.wait(5)
        self._completed.clear()
        return super()._try_lead()


def test_a_report_that_the_last_leader_has_taken_is_not_waited_for() -> None:
    listener = Overtaken()
    began = time.monotonic()
    listener.reports.wait(began + 10)
    assert time.monotonic() - began < 5
    assert listener.reports.errors == [None]
    listener.close()


@pytest.mark.process
def test_threads_without_any_hub_wait_as_well() -> None:
    script = """
import sys, threading, time
from collections import deque
from flask_qconsume.brokers.kafka.client.delivery_reports import PendingReports
from flask_qconsume.brokers.kafka.client.delivery_reports import ReportListener
listener, sent, late = ReportListener(), deque(), []
def publish():
    for _ in range(200):
        reports = PendingReports(1, listener)
        sent.append(reports)
        reports.wait(time.monotonic() + 20)
        late.extend(e for e in reports.errors if e)
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
assert "gevent" not in sys.modules
print(late, listener.is_idle)
listener.close()
"""
    done = run_script(script, "-W", "error", measured=False)
    assert done.stdout.strip() == "[] True", done.stderr
