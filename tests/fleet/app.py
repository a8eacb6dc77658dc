"""The app that worker processes under test run: its messages say what to do.

Everything a handler does is written to the ledger, a file outside of the process,
before and after it is done.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
import typing as t

import psutil
from flask import Flask

from flask_qconsume import ConsumerBlueprint
from flask_qconsume import QConsume
from flask_qconsume import Reject
from flask_qconsume import current_message

from ..waiting import hang
from ..waiting import spend
from .ledger import LEDGER
from .ledger import note

bp = ConsumerBlueprint("fleet", __name__)


@bp.consumer("work", routing_key="work")
def work(body: dict[str, t.Any]) -> None:
    """Do what the message says."""
    note("start", body["n"], current_message.attempt)
    _TODO[body.get("do", "wait")](body)
    note("done", body["n"], current_message.attempt)


def _wait(body: dict[str, t.Any]) -> None:
    spend(body.get("seconds", 0))


def _fail(body: dict[str, t.Any]) -> None:
    """Fail as often as it says."""
    if current_message.attempt <= body.get("times", 1):
        raise OSError("told to fail")


def _kill(body: dict[str, t.Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_once(body: dict[str, t.Any]) -> None:
    """Kill the process as the kernel does that is short of memory, but only once."""
    if _is_first(body):
        _kill(body)


def _is_first(body: dict[str, t.Any]) -> bool:
    """Whether no handler of any process has asked so for this message."""
    try:
        mark = os.open(f"{os.environ[LEDGER]}.{body['n']}", os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return False
    os.close(mark)
    return True


def _hoard(body: dict[str, t.Any]) -> None:
    """Take all the memory that there is, and let the others go on without any; once."""
    if not _is_first(body):
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = psutil.Process().memory_info().vms + body.get("bytes", 2**26)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    hoard: list[bytearray] = []
    try:
        for size in (2**20, 2**12, 2**9, 2**6):
            with contextlib.suppress(MemoryError):
                while True:
                    hoard.append(bytearray(size))
        spend(body.get("seconds", 0))
        hoard.append(bytearray(2**22))
    finally:
        del hoard[:]
        resource.setrlimit(resource.RLIMIT_AS, before)


def _exit(body: dict[str, t.Any]) -> None:
    sys.exit("told to exit")


def _hog(body: dict[str, t.Any]) -> None:
    """Use the processor and never let the hub have it."""
    until = time.monotonic() + body["seconds"]
    while time.monotonic() < until:
        pass


def _reject(body: dict[str, t.Any]) -> None:
    raise Reject("told to reject")


def _never(body: dict[str, t.Any]) -> None:
    hang()


def _swallow(body: dict[str, t.Any]) -> None:
    try:
        hang()
    except BaseException:
        return


_TODO = {
    "wait": _wait,
    "fail": _fail,
    "kill": _kill,
    "kill_once": _kill_once,
    "hoard": _hoard,
    "exit": _exit,
    "hog": _hog,
    "reject": _reject,
    "never": _never,
    "swallow": _swallow,
}


def create_app() -> Flask:
    app = Flask("fleet")
    app.config.from_prefixed_env()
    QConsume(app)
    app.register_blueprint(bp)

    @app.get("/")
    def index() -> str:
        return str(os.getpid())

    @app.post("/<int:n>")
    def publish(n: int) -> str:
        return str(app.extensions["qconsume"].publish("work", {"n": n}))

    return app
