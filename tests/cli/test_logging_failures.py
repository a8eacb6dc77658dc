"""Logs that fail or block: `flask qconsume run` goes on, and can be stopped."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from ..servers.ports import free_port
from ..waiting import wait_for
from .commands import FLASK
from .commands import Commands

HANDLER = """
import logging

import gevent


class Handler(logging.Handler):
    def emit(self, record):
        {code}


logging.getLogger().addHandler(Handler())
logging.getLogger().setLevel("INFO")
bp.before_worker(lambda: print("begun", flush=True))


@signals.worker_started.connect
def begin(sender, worker):
    publish = sender.extensions["qconsume"].publish
    gevent.spawn_later(0.1, publish, "order.created", {{"n": 1}})
"""


#: From the first such line on.
HANGS = """
        self.hangs = "consuming the queue" in record.getMessage() or self.hangs
        while self.hangs:
            gevent.sleep(1)
    hangs = False
"""


def add(commands: Commands, code: str) -> None:
    with (commands.folder / "shop.py").open("a") as file:
        file.write(code)


@pytest.mark.process
def test_a_handler_that_raises_breaks_nothing(commands: Commands) -> None:
    add(commands, HANDLER.format(code="raise RuntimeError('the log is full')"))
    with commands.start("run") as worker:
        worker.wait_for("billed {'n': 1}")
        assert worker.end() == 0
    assert "RuntimeError: the log is full" in worker.output


@pytest.mark.process
def test_a_handler_that_hangs_is_shown_and_does_not_keep_it_from_stopping(
    commands: Commands,
) -> None:
    """Its other handlers would wait for it for ever; the stop has its time."""
    add(commands, HANDLER.format(code=HANGS))
    commands.config |= {"BLOCKED_AFTER": 1.0, "SHUTDOWN_TIMEOUT": 1.0}
    address = f"127.0.0.1:{free_port()}"
    with commands.start("run", "--health", address) as worker:
        worker.wait_for("begun")
        wait_for(lambda: "A log handler has not returned for" in ask(address), 20)
        assert worker.end() == 3
    assert "The stop has not ended after 16 s: ending at once" in worker.output


def ask(address: str) -> str:
    """What a check for life gets that says no."""
    try:
        with urllib.request.urlopen(f"http://{address}/live", timeout=5):
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()
    except OSError:
        return ""


@pytest.mark.process
@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-"])
def test_it_runs_without_standard_streams(commands: Commands, closed: str) -> None:
    """As under a service manager that closes them."""
    add(commands, HANDLER.format(code="pass"))
    shell = ("sh", "-c", f'exec "$0" "$@" {closed}', *FLASK)
    with commands.start("run", command=shell) as worker:
        worker.wait_for("billed {'n': 1}")
        assert worker.end() == 0


@pytest.mark.process
def test_a_broken_pipe_of_the_app_is_told(commands: Commands) -> None:
    """The library of the command line takes it for the end of a shell's pipe."""
    add(
        commands,
        "\n@bp.before_worker\ndef gone():\n    raise BrokenPipeError('gone')\n",
    )
    done = commands.run("run")
    assert done.returncode == 1
    assert "BrokenPipeError: gone" in done.stderr
