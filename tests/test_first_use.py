"""Values made on first use, and publishing first while the process forks or ends."""

from __future__ import annotations

import gc
import os
import pathlib
import subprocess
import sys
import threading
import typing as t
import weakref

import pytest

from flask_qconsume.first_use import PerProcess
from flask_qconsume.first_use import fork_safe_property

from .harness.scripts import run_script

Run = t.Callable[[str, bool], str]

BROKERS = [
    pytest.param(name, marks=pytest.mark.broker)
    for name in (
        "rabbitmq",
        "redis",
        "redis-streams",
        "kafka",
        "postgresql",
    )
]


class Thing:
    """Counts how often it is computed."""

    computed = 0

    @fork_safe_property
    def value(self) -> int:
        """The docstring."""
        self.computed += 1
        return self.computed


def test_a_value_is_computed_once_for_each_object() -> None:
    one, other = Thing(), Thing()
    assert [one.value, one.value, other.value] == [1, 1, 1]
    assert one.computed == 1
    assert Thing.value.__doc__ == "The docstring."


def test_threads_that_come_at_once_get_the_same() -> None:
    values = PerProcess(object)
    barrier = threading.Barrier(4)
    found: list[object] = []

    def get() -> None:
        barrier.wait()
        found.append(values.get())

    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [values.get()] * 4


def test_nothing_is_made_before_it_is_needed() -> None:
    values = PerProcess(object)
    assert values.made is None
    assert values.get() is values.made


def test_a_value_that_was_taken_is_made_again() -> None:
    values = PerProcess(object)
    assert values.take() is None
    first = values.get()
    assert values.take() is first
    assert values.made is None
    assert values.get() is not first


def test_what_makes_values_goes_with_its_owner() -> None:
    values = PerProcess(object)
    kept = weakref.ref(values)
    values.get()
    del values
    gc.collect()
    assert kept() is None


@pytest.mark.process
def test_a_child_makes_its_own_and_keeps_the_parents_untouched() -> None:
    left: list[object] = []
    values = PerProcess(object, left.append)
    mine = values.get()
    child = os.fork()
    if child == 0:
        fine = values.made is None and left == [mine] and values.get() is not mine
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert values.get() is mine
    assert left == []


@pytest.mark.process
def test_a_fork_waits_for_what_is_being_made() -> None:
    """Else the child would find the lock locked, and half of a module imported."""
    run = run_script(
        """
import os, threading
from flask_qconsume.first_use import PerProcess
begun, forking = threading.Event(), threading.Event()
os.register_at_fork(before=forking.set)  # Called before those registered earlier.

def make():
    begun.set()
    assert forking.wait(20)
    return "made"

values = PerProcess(make)
thread = threading.Thread(target=values.get)
thread.start()
begun.wait(20)
child = os.fork()
if child == 0:
    values._make = lambda: "again"
    os._exit(0 if values.get() == "again" else 1)
assert values.made == "made"
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    )
    assert run.stdout == "0\n", run.stderr


@pytest.mark.process
def test_a_fork_waits_for_a_delay_but_not_for_long() -> None:
    run = run_script(
        """
import os, time
from flask_qconsume.first_use import delay_forks

def fork():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)

for asked in ([0.2], [0.4, 0.2]):
    began = time.monotonic()
    for seconds in asked:
        delay_forks(seconds)
    fork()
    print(time.monotonic() - began >= max(asked))

delay_forks(60)
began = time.monotonic()
fork()
print(2 <= time.monotonic() - began < 30)
"""
    )
    assert run.stdout == "True\nTrue\nTrue\n", run.stderr


@pytest.mark.process
def test_a_greenlet_that_forks_loses_no_error_that_is_thrown_into_it() -> None:
    run = run_script(
        """
import gevent.monkey; gevent.monkey.patch_all()
import os, time
import gevent
from flask_qconsume.first_use import delay_forks
from tests.waiting import hang

delay_forks(0.5)
began = time.monotonic()
with gevent.Timeout(0.2, False):
    child = os.fork()
    if child == 0:
        os._exit(0)
    print(time.monotonic() - began >= 0.4)
    hang()
print(time.monotonic() - began < 30)
os.waitpid(child, 0)
"""
    )
    assert (run.stdout, run.stderr) == ("True\nTrue\n", "")


@pytest.mark.process
def test_under_gevent_the_end_of_a_child_is_noticed_at_once() -> None:
    """Also an end before ``os.fork`` returns, for which gevent would wait for ever."""
    run = run_script(
        """
import gevent.monkey; gevent.monkey.patch_all()
import os
import gevent
import flask_qconsume

def let_child_end():
    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)

os.register_at_fork(after_in_parent=let_child_end)
child = os.fork()
if child == 0:
    os._exit(7)
with gevent.Timeout(20):
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    )
    assert (run.stdout, run.stderr) == ("7\n", "")


# -- publishing ------------------------------------------------------------------------

APP = """
import os, sys, threading
from flask import Flask
from flask_qconsume import PublishError, QConsume

app = Flask("shop")
app.config.update(
    QCONSUME_BROKER_URL={url!r}, QCONSUME_EXCHANGE="forks", QCONSUME_PUBLISH_TIMEOUT=10
)
qconsume = QConsume(app)
qconsume.add_consumer("forks.work", print, name="work")
consumers = app.extensions["qconsume"]


def publish():
    return consumers.publish("forks.work", {{}})
"""

FORK = """
from tests.waiting import wait_for

at, forked = threading.Event(), threading.Event()
main = threading.get_ident()


def hold():
    "Let the main thread fork now, unless it has."
    if not at.is_set() and threading.get_ident() != main:
        at.set()
        forked.wait({patience})


PACKAGES = ("redis", "amqp", "confluent_kafka", "sqlalchemy", "psycopg", "sqlite3")


class Importing:
    @staticmethod
    def find_spec(name, *args):
        if name.partition(".")[0] in PACKAGES:
            hold()


def connecting(event, args):
    if event in ("socket.__new__", "sqlite3.connect"):
        hold()


if {importing}:
    sys.meta_path.insert(0, Importing)
else:
    consumers.broker
    sys.addaudithook(connecting)

first = threading.Thread(target=publish)
first.start()
assert at.wait(20)
child = os.fork()
if child == 0:
    try:
        publish()
    except Exception as error:
        print(repr(error), flush=True)
        os._exit(1)
    os._exit(0)
forked.set()
first.join()
statuses = []


def has_ended():
    done, status = os.waitpid(child, os.WNOHANG)
    statuses.extend([status] if done else [])
    return done


try:
    wait_for(has_ended, 20)
    print("the child ended with", os.waitstatus_to_exitcode(statuses[0]))
except AssertionError:
    os.kill(child, 9)
    print("the child hung")
"""

LATE = """
import atexit


@atexit.register
def last():
    try:
        print("published", len(publish()))
    except PublishError as error:
        print("refused", error)
"""


@pytest.fixture(params=BROKERS)
def url(request: pytest.FixtureRequest) -> str:
    kind, _, layout = request.param.partition("-")
    found: str = request.getfixturevalue(f"{kind}_url")
    return found.replace("redis:", "redis-streams:") if layout else found


@pytest.fixture(params=[False, True], ids=["threads", "greenlets"])
def patched(request: pytest.FixtureRequest) -> bool:
    """Whether gevent has patched the process."""
    return bool(request.param)


@pytest.fixture
def run(tmp_path: pathlib.Path) -> Run:
    """Runs a script in a process of its own, and returns what it prints."""

    def run_(script: str, patched: bool) -> str:
        (tmp_path / "script.py").write_text(script)
        command = [sys.executable, *(["-m", "gevent.monkey"] if patched else [])]
        done = subprocess.run(
            [*command, tmp_path / "script.py"],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run_


@pytest.mark.parametrize("importing", [True, False], ids=["imports", "connects"])
def test_a_child_publishes_that_was_forked_while_another_thread(
    run: Run, url: str, importing: bool, patched: bool
) -> None:
    if url.startswith("postgresql") and not importing:
        pytest.skip("PostgreSQL's library connects where no audit hook sees it")
    # A fork waits for imports, so that nothing tells them that it has happened.
    patience = 0.5 if importing else 20
    script = APP.format(url=url) + FORK.format(importing=importing, patience=patience)
    assert run(script, patched) == "the child ended with 0\n"


@pytest.mark.parametrize("before", ["", "import gevent\n"], ids=["", "gevent"])
def test_the_first_publish_imports_nothing_once_the_broker_is_made(
    run: Run, url: str, before: str
) -> None:
    """Imports are made under the one lock that a fork waits for."""
    script = (
        before
        + APP.format(url=url)
        + (
            "consumers.broker\nbefore = set(sys.modules)\npublish()\n"
            "print(sorted(set(sys.modules) - before))\n"
        )
    )
    assert run(script, False) == "[]\n"


def test_the_first_publish_in_atexit_is_confirmed_or_refused(
    run: Run, url: str, patched: bool
) -> None:
    """Some versions of Python, from 3.12 on, start no threads any more then.

    RabbitMQ and Kafka need a thread, and gevent needs one to look up an address.
    """
    said = run(APP.format(url=url) + LATE, patched)
    needs_thread = patched or not url.startswith("redis")
    if needs_thread and sys.version_info >= (3, 12) and said != "published 36\n":
        assert said.startswith("refused ")
        assert "can't create new thread at interpreter shutdown" in said
        assert "The interpreter is shutting down" in said
    else:
        assert said == "published 36\n"


@pytest.mark.process
def test_what_a_fork_copies_of_a_broker_in_memory_nothing_consumes(run: Run) -> None:
    for url in ("memory://", "memory://named"):
        script = APP.format(url=url) + (
            "consumers.broker.note_worker()\npublish()\nchild = os.fork()\n"
            "if child == 0:\n"
            "    try:\n        publish()\n"
            "    except PublishError as error:\n"
            "        os._exit(0 if 'nothing consumes in this' in str(error) else 1)\n"
            "    os._exit(2)\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        )
        assert run(script, False) == "0\n"
