"""Signals to `flask qconsume run`, also while its hub is blocked."""

from __future__ import annotations

import signal

import psutil
import pytest

from ..harness.scripts import run_script
from ..servers.server import is_alive
from ..waiting import wait_for
from .commands import FLASK
from .commands import Commands

#: Code for the app: blocks the hub as soon as the worker consumes.
BLOCK = """
import gevent.monkey


def block():
    print("blocking", flush=True)
    {code}


@signals.worker_started.connect
def begin(sender, worker):
    gevent.spawn_later(0.1, block)
"""

COMPUTE = "while True: pass"

#: Replaces Python's wakeup descriptor for signals, and leaves none behind.
ASYNCIO = """
import asyncio
import signal

loop = asyncio.new_event_loop()
loop.add_signal_handler(signal.SIGWINCH, print)
loop.remove_signal_handler(signal.SIGWINCH)
loop.close()
print("asyncio was here", flush=True)
"""

#: Waits in C, where neither gevent nor a Python handler can interrupt it.
WAIT = 'gevent.monkey.get_original("time", "sleep")(1000)'

POOL = """__import__("multiprocessing").Pool(2).map(time.sleep, [1000, 1000])"""


def add_blocking_code(commands: Commands, code: str) -> None:
    with (commands.folder / "shop.py").open("a") as file:
        file.write(BLOCK.format(code=code))


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_signals_of_a_terminal_stop_the_worker_cleanly(
    commands: Commands, number: signal.Signals
) -> None:
    with commands.start("run") as worker:
        worker.wait_for("consuming the queue", 2)
        assert worker.end(number) == 0
    assert f"{number.name}: stopping; once more ends at once" in worker.output
    assert worker.output.endswith("Stopped cleanly\n")


@pytest.mark.process
def test_signals_stop_the_worker_after_asyncio_has_handled_some(
    commands: Commands,
) -> None:
    add_blocking_code(commands, f"exec({ASYNCIO!r})")
    with commands.start("run") as worker:
        worker.wait_for("asyncio was here")
        assert worker.end() == 0
    assert worker.output.count("SIGTERM: stopping") == 1


@pytest.mark.process
def test_an_ignored_hangup_stays_ignored(commands: Commands) -> None:
    with commands.start("run", command=("nohup", *FLASK)) as worker:
        worker.wait_for("consuming the queue", 2)
        worker.send(signal.SIGHUP)
        worker.send(signal.SIGUSR1)
        worker.wait_for("SIGUSR1: ignored")
        assert worker.end() == 0
    assert "SIGHUP" not in worker.output


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_without_a_meaning_is_logged_and_ignored(
    commands: Commands, number: signal.Signals
) -> None:
    with commands.start("run") as worker:
        worker.wait_for("consuming the queue", 2)
        worker.send(number)
        worker.wait_for(f"{number.name}: ignored, since it has no meaning for a worker")
        assert worker.end() == 0
    assert worker.output.endswith("Stopped cleanly\n")


@pytest.mark.process
def test_signals_that_the_app_handles_are_left_to_it(commands: Commands) -> None:
    with (commands.folder / "shop.py").open("a") as file:
        file.write(
            "\nimport faulthandler, signal\n"
            "signal.signal(signal.SIGHUP, lambda *args: print('mine', flush=True))\n"
            "faulthandler.register(signal.SIGUSR1)\n"
        )
    with commands.start("run") as worker:
        worker.wait_for("consuming the queue", 2)
        worker.send(signal.SIGHUP)
        worker.wait_for("mine")
        worker.send(signal.SIGUSR1)
        worker.wait_for("Current thread")
        assert worker.end() == 0
    assert "ignored" not in worker.output


@pytest.mark.process
@pytest.mark.parametrize("code", [COMPUTE, WAIT], ids=["computes", "waits in C"])
def test_a_second_signal_ends_a_blocked_worker(commands: Commands, code: str) -> None:
    add_blocking_code(commands, code)
    with commands.start("run") as worker:
        worker.wait_for("blocking")
        worker.send(signal.SIGINT)
        worker.wait_for("SIGINT: stopping; once more ends at once. It cannot begin yet")
        worker.wait_for("in block")
        worker.send(signal.SIGINT)
        assert worker.wait(5) == 130
    assert "Second signal: ending at once" in worker.output


@pytest.mark.process
def test_a_worker_that_hangs_in_an_import_can_be_stopped(commands: Commands) -> None:
    with (commands.folder / "shop.py").open("a") as file:
        file.write("\nprint('importing', flush=True)\nwhile True: pass\n")
    with commands.start("run") as worker:
        worker.wait_for("importing")
        worker.send()
        worker.wait_for("in <module>\n    while True: pass")
        assert worker.end() == 143


@pytest.mark.process
def test_children_of_multiprocessing_end_with_the_worker(commands: Commands) -> None:
    """Without help they wait for each other's pipes for ever."""
    add_blocking_code(commands, POOL)
    with commands.start("run") as worker:
        worker.wait_for("blocking")
        process = psutil.Process(worker.pid)
        children = wait_for(
            lambda: found if len(found := process.children()) == 2 else []
        )
        worker.send()
        worker.wait_for("It cannot begin yet")
        assert worker.end() == 143
        wait_for(lambda: not any(map(is_alive, children)))


STOP = """
import gevent.monkey
gevent.monkey.patch_all()
import logging, multiprocessing, os, signal, sys, time
import gevent
from flask_qconsume.running.process.stop_signals import StopSignals

logging.basicConfig(level=logging.INFO)
signals = StopSignals()
"""


@pytest.mark.process
def test_a_stop_that_does_not_end_is_forced() -> None:
    """A stop may take 15 s longer than the time of its handlers."""
    done = run_script(
        STOP + "signals.allow(-14)\n"
        "def compute():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    while True: pass\n"
        "compute()\n"
    )
    assert done.returncode == 3
    assert "The stop has not ended after 1 s: ending at once" in done.stderr
    assert "in compute\n" in done.stderr


@pytest.mark.process
def test_a_stop_is_forced_while_a_log_lock_is_held() -> None:
    done = run_script(
        STOP + "signals.allow(-14)\n"
        "with logging.getLogger().handlers[0].lock:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    while True: pass\n"
    )
    assert done.returncode == 3
    assert "The stop has not ended after 1 s: ending at once" in done.stderr


@pytest.mark.process
def test_a_signal_ends_a_forked_child_but_not_the_worker() -> None:
    """The worker does not see the signal."""
    done = run_script(
        STOP + "process = multiprocessing.Process(target=time.sleep, args=(1000,))\n"
        "process.start()\n"
        "process.terminate()\n"
        "process.join()\n"
        "print('ended by', -process.exitcode, signals.asked.wait(0.5))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('asked', signals.asked.wait(5))\n"
    )
    assert done.stdout == "ended by 15 False\nasked True\n", done.stderr


@pytest.mark.process
def test_the_end_of_the_supervisor_reaches_a_blocked_worker() -> None:
    done = run_script(
        STOP.replace("StopSignals()", "StopSignals(Parent(ours, None))").replace(
            "\nlogging",
            "\nimport socket\n"
            "from flask_qconsume.running.process.parent import Parent\n"
            "ours, theirs = socket.socketpair()\nlogging",
        )
        + "signals.allow(-14)\n"
        "theirs.close()\n"
        "while True: pass\n"
    )
    assert done.returncode == 3
    assert "The supervising process is gone: stopping. It cannot begin" in done.stderr
