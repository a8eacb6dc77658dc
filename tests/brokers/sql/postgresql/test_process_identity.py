"""Processes of the same host, whose end is seen before their leases end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import typing as t
from collections.abc import Callable
from collections.abc import Iterator

import pytest

from flask_qconsume.brokers.sql.postgresql.process_identity import has_ended
from flask_qconsume.brokers.sql.postgresql.process_identity import identify_process

from ....waiting import wait_for
from ..tools import SqlQueue

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not identify_process(), reason="needs Linux's /proc"),
]

_HOLDER = """
import sys
from tests.brokers.sql.tools import SqlQueue
queue = SqlQueue(sys.argv[1])
link = queue.link()
queue.take(link, 2)
print(queue.broker._shared.database.process, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def holder(url: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds two messages; the process, and its identity."""
    command = [sys.executable, "-c", _HOLDER, url]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_messages_of_a_killed_process_come_before_its_lease_ends(
    postgresql_url: str, open_queue: Callable[..., SqlQueue]
) -> None:
    queue = open_queue(postgresql_url, lease=3_600)
    queue.publish(1, 2)
    with holder(postgresql_url) as (process, identity):
        assert not has_ended(identity)
        link = queue.link()
        assert queue.broker.depth("billing") == 0
        process.kill()
        process.wait()
        wait_for(lambda: has_ended(identity))
        link.keep_alive()
        found = queue.take(link, 2)
    assert [each.message.redelivered for each in found] == [True, True]


def test_this_process_has_not_ended() -> None:
    assert not has_ended(identify_process())


def test_a_number_that_a_later_process_has_is_not_the_same_process() -> None:
    space = identify_process().rpartition("/")[0]
    assert has_ended(f"{space}/1")


@pytest.mark.parametrize("identity", ["", "x", "a/1/2/3", "a/b/c/d", "////"])
def test_a_process_of_another_host_is_not_judged(identity: str) -> None:
    assert not has_ended(identity)


def test_a_process_of_another_container_is_not_judged() -> None:
    boot, _, pid, started = t.cast(
        tuple[str, str, str, str], tuple(identify_process().split("/"))
    )
    assert pid == str(os.getpid())
    assert not has_ended(f"{boot}/1/999999999/{started}")
