"""A handler forks: the child never continues as a second worker."""

from __future__ import annotations

import subprocess

import pytest

from ..harness.scripts import run_script

WORKER = """
from gevent import monkey
monkey.patch_all()
import os, sys, logging
import gevent
from flask import Flask
from flask_qconsume import QConsume, spawn
from flask_qconsume.running.worker import Worker
from tests.waiting import spend, wait_for

logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.WARNING)
app = Flask("shop")
app.config["QCONSUME_BROKER_URL"] = {url!r}
qconsume = QConsume(app)
statuses = []

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

@qconsume.teardown_message
def tear_down(error):
    say("torn down by", "parent" if os.getpid() == parent else "child")

@qconsume.consumer("billing", concurrency=4)
def bill(order):
    spend(0.05)
    say("order", order, "by", "parent" if os.getpid() == parent else "child")
    if order == 0:
        pid = fork()
        if not pid:
            {child}
            return
        statuses.append(os.waitpid(pid, 0)[1])

fork = {fork}
parent = os.getpid()
app.testing = True
# Before the fork: the child would have a copy of a greenlet that waits for the answer.
for order in range(20):
    app.extensions["qconsume"].publish("billing", order)
worker = Worker(app)
worker.start()
wait_for(lambda: worker.subscriptions[0].counts.total() >= 20, 20)
say("counts", dict(worker.subscriptions[0].counts))
say("exit codes", [os.waitstatus_to_exitcode(status) for status in statuses])
worker.stop()
"""


def worked(url: str, child: str, fork: str = "os.fork") -> list[str]:
    """The lines of a worker that handles twenty orders, and forks at the first."""
    done: subprocess.CompletedProcess[str] = run_script(
        WORKER.format(url=url, child=child, fork=fork)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def check(lines: list[str], code: int) -> None:
    orders = sorted(line for line in lines if line.startswith("order"))
    assert orders == sorted(f"order {order} by parent" for order in range(20))
    assert lines.count("torn down by parent") == 20
    assert "torn down by child" not in lines
    assert "counts {'ack': 20}" in lines
    assert f"exit codes [{code}]" in lines
    assert any("the child came back from it" in line for line in lines)


@pytest.mark.process
@pytest.mark.parametrize(
    ("child", "code"),
    [
        ("pass", 0),
        ("raise ValueError", 1),
        ("sys.exit(7)", 7),
        ("spend(0.5)", 0),
    ],
    ids=["returns", "raises", "exits", "waits"],
)
def test_a_child_that_comes_back_ends(child: str, code: int) -> None:
    check(worked("memory://", child), code)


@pytest.mark.parametrize("child", ["spend(1)", "spend(1); raise OSError"])
def test_a_child_that_waits_reads_and_settles_nothing_on_redis(
    redis_url: str, child: str
) -> None:
    check(worked(redis_url, child), 1 if "raise" in child else 0)


def test_a_child_that_waits_reads_and_settles_nothing_on_rabbitmq(
    rabbitmq_url: str,
) -> None:
    check(worked(rabbitmq_url, "spend(1)"), 0)


@pytest.mark.process
def test_a_child_that_a_greenlet_of_the_message_forks_ends() -> None:
    fork = "lambda: spawn(os.fork).get()"
    check(worked("memory://", "say('never here')", fork), 0)


@pytest.mark.process
def test_a_child_that_a_greenlet_of_the_app_forks_ends() -> None:
    """Else the child would continue a waiting handler, or wait with shared sockets."""
    fork = "lambda: gevent.spawn(lambda: os.fork() or 1 / 0).get()"
    check(worked("memory://", "say('never here')", fork), 1)


@pytest.mark.process
def test_a_child_that_wakes_a_handler_ends() -> None:
    wait = "gevent.spawn(lambda: got.set(os.fork() or spend(0.5) or 0))"
    fork = f"lambda: [got := gevent.event.AsyncResult(), {wait}, got.get()][2]"
    check(worked("memory://", "spend(0.5)", fork), 0)
