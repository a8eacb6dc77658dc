"""Log handlers that fail or block: the worker continues, and can be stopped."""

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


#: Hangs from the line 'consuming the queue' on.
HANGS = """
        self.hangs = "consuming the queue" in record.getMessage() or self.hangs
        if self.hangs:
            hang()
    hangs = False
"""


def add_code(commands: Commands, code: str) -> None:
    with (commands.folder / "shop.py").open("a") as file:
        file.write(code)


@pytest.mark.process
def test_a_log_handler_that_raises_breaks_nothing(commands: Commands) -> None:
    add_code(commands, HANDLER.format(code="raise RuntimeError('the log is full')"))
    with commands.start("run") as worker:
        worker.wait_for("billed {'n': 1}")
        assert worker.end() == 0
    assert "RuntimeError: the log is full" in worker.output


@pytest.mark.process
def test_a_log_handler_that_hangs_is_reported_and_the_stop_is_forced(
    commands: Commands,
) -> None:
    """Every later log line would wait for ever, so the stop ends by its deadline."""
    add_code(commands, HANDLER.format(code=HANGS))
    commands.config |= {"BLOCKED_AFTER": 1.0, "SHUTDOWN_TIMEOUT": 1.0}
    address = f"127.0.0.1:{free_port()}"
    with commands.start("run", "--health", address) as worker:
        worker.wait_for("begun")
        wait_for(
            lambda: "A log handler has not returned for" in read_failed_check(address),
            20,
        )
        assert worker.end() == 3
    assert "The stop has not ended after 16 s: ending at once" in worker.output


def read_failed_check(address: str) -> str:
    """Return the answer of a failed liveness check, or an empty text."""
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
    """Some service managers close the streams."""
    add_code(commands, HANDLER.format(code="pass"))
    shell = ("sh", "-c", f'exec "$0" "$@" {closed}', *FLASK)
    with commands.start("run", command=shell) as worker:
        worker.wait_for("billed {'n': 1}")
        assert worker.end() == 0


@pytest.mark.process
def test_a_broken_pipe_of_the_app_is_logged(commands: Commands) -> None:
    """click would take the error for a closed pipe of the shell."""
    add_code(
        commands,
        "\n@bp.before_worker\ndef gone():\n    raise BrokenPipeError('gone')\n",
    )
    done = commands.run("run")
    assert done.returncode == 1
    assert "BrokenPipeError: gone" in done.stderr
