"""SystemExit and KeyboardInterrupt in greenlets of the app, and the end of `run`."""

from __future__ import annotations

import pathlib
import sys

import pytest

from ..servers.ports import free_port
from .commands import Commands

pytestmark = pytest.mark.process

APP = """
import sys
import time

import gevent.event
from flask import Flask
from flask_qconsume import QConsume, current_message, spawn

qconsume = QConsume()


class WithoutText(Exception):
    def __str__(self):
        raise SystemExit(0)

    __repr__ = __str__


begun = []
all_begun = gevent.event.Event()


def take(seconds):
    time.sleep(seconds)


def leave():
    raise {raised}


def fail(error):
    raise {{"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}}.get(
        error, WithoutText
    )


@qconsume.consumer("bill")
def bill(order):
    begun.append(order)
    if len(begun) == {count}:
        all_begun.set()
    way, _, error = order.partition(" ")
    if way == "spawn" and current_message.attempt == 1:
        spawn(fail, error).get()
    if way == "fail" and current_message.attempt == 1:
        fail(error)
    take(0.5)
    print("handled", order, flush=True)


def work():
    publish = app.extensions["qconsume"].publish
    for order in {orders!r}:
        publish("bill", order)
    all_begun.wait()
    {then}


@qconsume.before_worker
def begin():
    gevent.spawn(work)


def create_app():
    global app
    app = Flask("shop")
    app.config["QCONSUME_BROKER_URL"] = "memory://"
    app.config.from_prefixed_env()
    qconsume.init_app(app)
    return app
"""


LEAVE_AT_ONCE = """
from flask_qconsume import signals


@signals.worker_started.connect
def started(sender, worker):
    gevent.spawn(leave)
"""


def write_app(
    folder: pathlib.Path, raised: str, *orders: str, then: str = "leave()"
) -> None:
    (folder / "shop.py").write_text(
        APP.format(raised=raised, orders=orders, count=len(orders), then=then)
    )


@pytest.mark.parametrize("web", [False, True], ids=["run", "web"])
@pytest.mark.parametrize("raised", ["SystemExit", "SystemExit(0)", "KeyboardInterrupt"])
def test_an_exit_in_a_greenlet_is_a_stop_with_a_code_of_its_own(
    commands: Commands, folder: pathlib.Path, raised: str, web: bool
) -> None:
    write_app(folder, raised, "one", "two")
    args = ("--web", f"127.0.0.1:{free_port()}") if web else ()
    with commands.start("run", *args) as worker:
        assert worker.wait() == 4
    assert "handled one" in worker.output
    assert "handled two" in worker.output
    assert "A greenlet raised" in worker.output
    assert "in leave" in worker.output
    assert "Stopped cleanly" in worker.output


@pytest.mark.parametrize("web", [False, True], ids=["run", "web"])
def test_an_exit_during_the_start_is_a_stop_too(
    commands: Commands, folder: pathlib.Path, web: bool
) -> None:
    """Handlers start before the web server, which first resolves its host name."""
    write_app(folder, "SystemExit", then="pass")
    with (folder / "shop.py").open("a") as file:
        file.write(LEAVE_AT_ONCE)
    args = ("--web", f"127.0.0.1:{free_port()}") if web else ()
    with commands.start("run", *args) as worker:
        assert worker.wait() == 4
    assert "in leave" in worker.output
    assert "Stopped cleanly" in worker.output


def test_an_exit_in_a_forked_child_stops_no_worker(
    commands: Commands, folder: pathlib.Path
) -> None:
    """A stop in the child would close the connections of its parent."""
    raised = "ValueError if __import__('os').fork() else SystemExit"
    write_app(folder, raised, "one", "two")
    with commands.start("run") as worker:
        worker.wait_for("the child came back from it")
        worker.wait_for("handled two")
        assert worker.end() == 0
    assert "A greenlet raised" not in worker.output
    assert worker.output.count("in leave") == 1
    assert worker.output.count("Stopped cleanly") == 1


def test_further_exits_do_not_shorten_the_stop(
    commands: Commands, folder: pathlib.Path
) -> None:
    then = "for _ in range(3): gevent.spawn(leave); take(0.05)"
    write_app(folder, "SystemExit", "one", then=then)
    with commands.start("run") as worker:
        assert worker.wait() == 4
    assert "handled one" in worker.output
    assert "while stopping: the stop goes on" in worker.output
    assert "Stopped cleanly" in worker.output


def test_an_exit_in_a_message_is_a_failure_of_the_message(
    commands: Commands, folder: pathlib.Path
) -> None:
    failing = [
        f"{way} {error}"
        for way in ("fail", "spawn")
        for error in ("SystemExit", "KeyboardInterrupt", "WithoutText")
    ]
    write_app(folder, "ValueError", *failing, "other", then="pass")
    with commands.start("run") as worker:
        worker.wait_for("attempt 1 of 6", len(failing))
        worker.wait_for("handled other")
        assert worker.end() == 0
    assert "A greenlet raised" not in worker.output


def test_a_timeout_that_a_hook_leaves_running_stops_nothing(
    commands: Commands, folder: pathlib.Path
) -> None:
    write_app(folder, "ValueError", "one", then="pass")
    with (folder / "shop.py").open("a") as stream:
        stream.write(
            "\n@qconsume.before_worker\n"
            "def leave_one_running():\n    gevent.Timeout(0.3).start()\n"
        )
    with commands.start("run") as worker:
        worker.wait_for("A hook has left a time-out running")
        worker.wait_for("handled one")
        assert worker.end() == 0


def test_a_child_that_exits_is_started_again(
    on_redis: Commands, folder: pathlib.Path
) -> None:
    write_app(folder, "SystemExit", "one")
    with on_redis.start("run", "--processes", "1") as supervisor:
        supervisor.wait_for("Stopped cleanly")
        supervisor.wait_for("exit code 4")
        supervisor.wait_for("handled one", 2)
        supervisor.end()


def test_gunicorn_replaces_a_worker_that_exits(
    commands: Commands, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))  # Gunicorn puts its control socket there.
    write_app(folder, "SystemExit", "one")
    config = "python:flask_qconsume.integrations.gunicorn"
    bound = f"127.0.0.1:{free_port()}"
    options = ("-k", "gevent", "-b", bound, "-c", config, "shop:create_app()")
    with commands.spawn([sys.executable, "-m", "gunicorn", *options]) as master:
        master.wait_for("Stopped cleanly")
        master.wait_for("handled one", 2)
        assert master.end() == 0
