"""Threads of the system in a patched process, and the notifier that wakes the hub."""

from __future__ import annotations

import time

import gevent
import pytest

from flask_qconsume.native_threads import NativeThread
from flask_qconsume.native_threads import ThreadNotifier
from flask_qconsume.native_threads import get_unpatched

from .harness.scripts import run_script
from .harness.ticks import Ticks
from .waiting import wait_for

allocate_lock = get_unpatched("_thread", "allocate_lock")


def test_a_native_thread_blocks_without_stopping_the_hub() -> None:
    lock = allocate_lock()
    lock.acquire()
    thread = NativeThread(lock.acquire, "blocked").start()
    with Ticks() as ticks:
        wait_for(lambda: ticks.count > 5)
    assert thread.alive
    lock.release()
    assert thread.join(10)


def test_a_join_waits_cooperatively_and_no_longer_than_asked() -> None:
    lock = allocate_lock()
    lock.acquire()
    thread = NativeThread(lock.acquire, "stuck").start()
    assert "'stuck', running" in repr(thread)
    joining = [gevent.spawn(thread.join, 0.05) for _ in range(3)]
    gevent.joinall(joining)
    assert [each.value for each in joining] == [False] * 3
    lock.release()
    assert thread.join(10)
    assert "not running" in repr(thread)


def test_what_a_thread_raises_is_kept() -> None:
    thread = NativeThread(lambda: 1 // 0, "broken").start()
    assert thread.join(10)
    assert isinstance(thread.error, ZeroDivisionError)


def test_a_notifier_wakes_from_another_thread() -> None:
    notifier = ThreadNotifier()
    lock = allocate_lock()
    lock.acquire()
    thread = NativeThread(lambda: (lock.acquire(), notifier.notify()), "waker").start()
    gevent.spawn(lock.release)  # Its turn is in the wait.
    assert notifier.wait(10)
    assert not notifier.wait(0)
    thread.join()
    notifier.close()


def test_a_notification_that_came_before_the_wait_is_heard_once() -> None:
    notifier = ThreadNotifier()
    for _ in range(3):
        notifier.notify()
    assert notifier.wait(10)
    assert not notifier.wait(0.01)
    notifier.notify()
    assert notifier.wait(10)
    notifier.close()


def test_closing_a_notifier_ends_the_wait() -> None:
    notifier = ThreadNotifier()
    waiting = gevent.spawn(notifier.wait, 60)
    gevent.sleep(0)
    notifier.close()
    waiting.join(10)
    assert waiting.value is True
    assert notifier.wait(60)
    notifier.notify()


def test_no_ring_is_lost() -> None:
    notifier, rounds = ThreadNotifier(), 500
    heard: list[int] = []
    told: list[int] = []

    def tell() -> None:
        for number in range(rounds):
            told.append(number)
            notifier.notify()

    thread = NativeThread(tell, "teller").start()
    deadline = time.monotonic() + 20
    while len(heard) < rounds and time.monotonic() < deadline:
        notifier.wait(1)
        heard += told[len(heard) :]
    assert heard == list(range(rounds))
    thread.join()
    notifier.close()


@pytest.mark.process
def test_it_works_where_nothing_is_patched() -> None:
    # Without site: what measures a run imports gevent as the interpreter starts.
    code = (
        "import sys\n"
        "from flask_qconsume.native_threads import ThreadNotifier, NativeThread\n"
        "question, answer = ThreadNotifier(), ThreadNotifier()\n"
        "def reply():\n"
        "    for _ in range(100): question.wait(10) and answer.notify()\n"
        "thread = NativeThread(reply, 'x').start()\n"
        "print({question.notify() or answer.wait(10) for _ in range(100)})\n"
        "print(answer.wait(0.01), thread.join(10), thread.error)\n"
        "question.close(), answer.close()\n"
        "print([name for name in sys.modules if name.startswith('gevent')])\n"
    )
    done = run_script(code, "-S")
    assert done.stdout.splitlines() == ["{True}", "False True None", "[]"], done.stderr
