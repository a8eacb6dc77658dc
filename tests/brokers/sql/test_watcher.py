"""Delayed messages become ready on time, without a reader that reads."""

from __future__ import annotations

import time
from collections.abc import Callable

from ...waiting import wait_for
from .tools import SqlQueue
from .tools import bodies
from .tools import execute

_READY = "SELECT count(*) FROM qconsume_message WHERE due IS NULL"
_DUE = "UPDATE qconsume_message SET due = 1"


def count_ready(url: str) -> int:
    ((count,),) = execute(url, _READY)
    return int(count)


def test_a_message_becomes_ready_while_all_readers_are_busy(
    database_url: str, queue: SqlQueue
) -> None:
    queue.link()
    queue.publish("soon", delay=0.5)
    wait_for(lambda: count_ready(database_url) == 1)


def test_a_delay_of_another_process_is_noticed(
    database_url: str, queue: SqlQueue, open_queue: Callable[..., SqlQueue]
) -> None:
    link, other = queue.link(), open_queue(database_url)
    started = time.monotonic()
    other.publish("later", delay=60)
    other.publish("soon", delay=0.3)
    assert bodies(queue.take(link, 1)) == [b'"soon"']
    assert time.monotonic() - started >= 0.3


def test_messages_that_are_due_at_once_become_ready_in_portions(
    database_url: str, queue: SqlQueue
) -> None:
    queue.publish(*range(3_500), delay=3_600)
    execute(database_url, _DUE)
    queue.link()
    wait_for(lambda: count_ready(database_url) == 3_500, 60)


def test_a_closed_broker_has_no_thread_that_looks(queue: SqlQueue) -> None:
    queue.link()
    watcher = queue.broker._shared.watcher
    queue.close()
    assert watcher._thread is not None
    assert watcher._thread.join(5)
