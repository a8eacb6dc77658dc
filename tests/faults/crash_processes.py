"""Runner of crash cases, each a sequence of processes; many cases run at once.

``python -m gevent.monkey --module tests.faults.crash_processes PLAN`` reads a JSON file
and runs its cases to their ends. Each process is forked from one that has imported all
modules, since the start of an interpreter takes longer than such a process runs.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import pathlib
import signal
import sys
import time
import traceback
import typing as t

import gevent
import gevent.os
from flask import Flask
from gevent import monkey

from flask_qconsume import BrokerError
from flask_qconsume.appconsumers import AppConsumers
from flask_qconsume.appconsumers import get_app_consumers
from flask_qconsume.cli.run import RunOptions
from flask_qconsume.cli.run import log_to_stderr
from flask_qconsume.cli.run import serve
from flask_qconsume.running.process.stop_signals import StopSignals
from flask_qconsume.running.worker import find_worker

from ..fleet.ledger import LEDGER
from ..fleet.ledger import Ledger
from ..fleet.ledger import note
from ..waiting import wait_for
from .crashing import DELAY
from .crashing import SHORT_DELAY
from .crashing import connect_signals
from .crashing import crash
from .crashing import make_app

#: Seconds without an event after which a case counts as over: longer than a retry; and
#: on Redis longer than a lease, which hides the messages of a dead process.
QUIET = 2.5
QUIET_LEASE = 5.0
#: Seconds between two looks whether all is done. It must be so at both: at the first,
#: a message may be on its way to the worker, neither in its queue nor in a handler.
LOOK_AGAIN = 0.5
#: Seconds after which a process is ended.
MAX_PROCESS_SECONDS = 150
#: Number of cases that run at once.
MAX_CASES_AT_ONCE = 10

BROKERS = ("rabbitmq", "redis", "redis_streams", "kafka", "sql")


class Plan(t.TypedDict):
    """One case of the file."""

    folder: str
    config: dict[str, t.Any]
    key: str
    scenario: str
    deaths: list[str]
    others: list[int]


def main(path: str) -> None:
    """Run all cases of a plan."""
    for name in BROKERS:
        importlib.import_module(f"flask_qconsume.brokers.{name}")
    todo: list[Plan] = json.loads(pathlib.Path(path).read_text())
    todo.reverse()
    running: dict[int, tuple[Plan, int]] = {}
    wait = monkey.get_original("os", "waitpid")
    while todo or running:
        while todo and len(running) < MAX_CASES_AT_ONCE:
            plan = todo.pop()
            running[_fork(plan, 0)] = plan, 0
        pid, status = wait(-1, 0)
        plan, number = running.pop(pid)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            running[_fork(plan, number + 1)] = plan, number + 1


def _fork(plan: Plan, number: int) -> int:
    pid = t.cast(int, gevent.os.fork_gevent())
    if pid:
        return pid
    code = 70
    try:
        _redirect(pathlib.Path(plan["folder"]) / f"process-{number}.log")
        code = _run(plan, number)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _redirect(path: pathlib.Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)


def _run(plan: Plan, number: int) -> int:
    """Run one process; return its exit code, unless it crashes."""
    signal.alarm(MAX_PROCESS_SECONDS)
    os.environ[LEDGER] = str(pathlib.Path(plan["folder"]) / "ledger")
    crash.number = number
    crash.point = dict(enumerate(plan["deaths"])).get(number, "")
    app = make_app(plan["config"], plan["key"])
    log_to_stderr()
    if number == 0:
        _publish(app, plan)
    receivers = connect_signals(app)
    gevent.spawn(_end_when_over, app, plan)
    code = serve(app, RunOptions((), None, False, None, None), StopSignals())
    del receivers
    _note_end(app, code)
    return code


def _publish(app: Flask, plan: Plan) -> None:
    """Publish the messages of a case, by an object that does not crash."""
    delay = SHORT_DELAY if plan["scenario"] == "short retry" else DELAY
    do = _do(plan["scenario"])
    consumers = AppConsumers(app, get_app_consumers(app).settings)
    body = {"n": 1, "do": do, "delay": delay, "key": plan["key"]}
    consumers.publish(plan["key"], body, key="k")
    if do == "stop":
        consumers.publish(plan["key"], {"n": 2, "do": "ack"}, key="k")
    consumers.close()


def _do(scenario: str) -> str:
    """Return the handler's task: the scenario without its variant."""
    return scenario.removeprefix("short ").removesuffix(" in order")


def _end_when_over(app: Flask, plan: Plan) -> None:
    """Stop the worker once all messages are handled and no event comes."""
    ledger = Ledger(pathlib.Path(plan["folder"]) / "ledger")
    seen, since, looks = 0, time.monotonic(), 0
    lease = plan["config"].get("QCONSUME_LEASE")
    quiet = QUIET_LEASE if lease else QUIET

    def is_over() -> bool:
        nonlocal seen, since, looks
        if len(ledger.everything()) != seen:
            seen, since, looks = len(ledger.everything()), time.monotonic(), 0
        if time.monotonic() - since < quiet:
            return False
        since = time.monotonic() - quiet + LOOK_AGAIN
        looks = looks + 1 if _is_over(app, plan, ledger) else 0
        return looks == 2

    wait_for(is_over, math.inf, interval=0.1)
    os.kill(os.getpid(), signal.SIGTERM)


def _is_over(app: Flask, plan: Plan, ledger: Ledger) -> bool:
    try:
        return _is_done(app, plan, ledger)
    except BrokerError:
        return False  # The caller asks again.


def _is_done(app: Flask, plan: Plan, ledger: Ledger) -> bool:
    worker = find_worker(app)
    consumers = get_app_consumers(app)
    (queue,) = consumers.topology.queues
    if worker is None or worker.busy:
        return False
    missing = {1, *plan["others"]} - set(ledger.counted())
    if missing and not consumers.broker.dead_letters(queue).count():
        return False
    return not any(
        consumers.broker.depth(name) for name in (queue.name, queue.suspects)
    )


def _note_end(app: Flask, code: int) -> None:
    """Note which messages are left on the broker, read by a new connection."""
    consumers = AppConsumers(app, get_app_consumers(app).settings)
    (queue,) = consumers.topology.queues
    left = [consumers.broker.depth(name) for name in (queue.name, queue.suspects)]
    dead = [letter.headers for letter in consumers.broker.dead_letters(queue)]
    note("end", {"left": left, "dead": dead}, code)
    consumers.close()


if __name__ == "__main__":
    main(sys.argv[1])
