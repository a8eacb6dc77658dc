"""Threads of the system in a patched process, and the bell that wakes the hub."""

from __future__ import annotations

import time

import gevent

from flask_qconsume.native_threads import Bell
from flask_qconsume.native_threads import NativeThread
from flask_qconsume.native_threads import original

from .harness.scripts import run_script

sleep = original("time", "sleep")


def test_a_native_thread_blocks_without_stopping_the_hub() -> None:
    thread = NativeThread(lambda: sleep(0.2), "sleeper").start()
    ticks = 0
    while thread.alive:
        gevent.sleep(0.01)
        ticks += 1
    assert ticks > 5
    assert thread.join(0)


def test_a_join_waits_cooperatively_and_no_longer_than_asked() -> None:
    lock = original("_thread", "allocate_lock")()
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


def test_a_bell_wakes_from_another_thread() -> None:
    bell = Bell()
    thread = NativeThread(lambda: (sleep(0.05), bell.ring()), "ringer").start()
    assert bell.wait(10)
    assert not bell.wait(0)
    thread.join()
    bell.close()


def test_a_bell_that_rang_before_the_wait_is_heard_once() -> None:
    bell = Bell()
    for _ in range(3):
        bell.ring()
    assert bell.wait(10)
    assert not bell.wait(0.01)
    bell.ring()
    assert bell.wait(10)
    bell.close()


def test_closing_a_bell_ends_the_wait() -> None:
    bell = Bell()
    waiting = gevent.spawn(bell.wait, 60)
    gevent.sleep(0)
    bell.close()
    waiting.join(10)
    assert waiting.value is True
    assert bell.wait(60)
    bell.ring()


def test_no_ring_is_lost() -> None:
    bell, rounds = Bell(), 500
    heard: list[int] = []
    told: list[int] = []

    def tell() -> None:
        for number in range(rounds):
            told.append(number)
            bell.ring()

    thread = NativeThread(tell, "teller").start()
    deadline = time.monotonic() + 20
    while len(heard) < rounds and time.monotonic() < deadline:
        bell.wait(1)
        heard += told[len(heard) :]
    assert heard == list(range(rounds))
    thread.join()
    bell.close()


def test_it_works_where_nothing_is_patched() -> None:
    # Without site: what measures a run imports gevent as the interpreter starts.
    code = (
        "import sys, time\n"
        "from flask_qconsume.native_threads import Bell, NativeThread\n"
        "bell = Bell()\n"
        "thread = NativeThread(lambda: (time.sleep(0.05), bell.ring()), 'x').start()\n"
        "print(bell.wait(10), bell.wait(0.01), thread.join(10), thread.error)\n"
        "bell.close()\n"
        "print([name for name in sys.modules if name.startswith('gevent')])\n"
    )
    done = run_script(code, "-S")
    assert done.stdout.split("\n")[:2] == ["True False True None", "[]"], done.stderr
