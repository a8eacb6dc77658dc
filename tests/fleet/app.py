"""The app of the worker processes under test: its messages contain their task.

Each handler writes a line to the ledger file before and after its task.
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
from flask_qconsume.integrations.metrics import metrics

from ..waiting import hang
from ..waiting import spend
from .ledger import LEDGER
from .ledger import note

bp = ConsumerBlueprint("fleet", __name__)


@bp.consumer("work", routing_key="work")
def work(body: dict[str, t.Any]) -> None:
    """Do the task of the message."""
    note("start", body["n"], current_message.attempt)
    _TASKS[body.get("do", "wait")](body)
    note("done", body["n"], current_message.attempt)


def _wait(body: dict[str, t.Any]) -> None:
    spend(body.get("seconds", 0))


def _fail(body: dict[str, t.Any]) -> None:
    """Fail ``times`` times."""
    if current_message.attempt <= body.get("times", 1):
        raise OSError("told to fail")


def _kill(body: dict[str, t.Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_once(body: dict[str, t.Any]) -> None:
    """Kill the process once, as the kernel does when memory is short."""
    if _is_first(body):
        _kill(body)


def _is_first(body: dict[str, t.Any]) -> bool:
    """Return whether this is the first call for the message, in all processes."""
    try:
        mark = os.open(f"{os.environ[LEDGER]}.{body['n']}", os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return False
    os.close(mark)
    return True


def _hoard(body: dict[str, t.Any]) -> None:
    """Take all memory for a while, so that other code in the process has none; once."""
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
    """Block the hub with a busy loop."""
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


_TASKS = {
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
    app.add_url_rule("/metrics", view_func=metrics)

    @app.get("/")
    def index() -> str:
        return str(os.getpid())

    @app.post("/<int:n>")
    def publish(n: int) -> str:
        return str(app.extensions["qconsume"].publish("work", {"n": n}))

    return app
