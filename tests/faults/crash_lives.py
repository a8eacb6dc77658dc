"""The processes of many cases, one after the other within each, many cases at once.

``python -m gevent.monkey --module tests.faults.crash_lives PLAN`` reads a file of JSON
and runs its cases to their ends. It forks each process from one that has imported all,
since a start of the interpreter takes longer than such a life does.
"""

from __future__ import annotations

import importlib
import json
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
from .crashing import DELAY
from .crashing import SHORT_DELAY
from .crashing import connect_signals
from .crashing import life
from .crashing import make_app

#: Seconds for which nothing may happen until it counts as over: longer than a retry
#: takes; and on Redis than a lease, in which nobody sees what a dead process held.
QUIET = 2.5
QUIET_LEASE = 5.0
#: Seconds that one process may live.
LONGEST = 150
#: How many cases run at once.
AT_ONCE = 10

BROKERS = ("rabbitmq", "redis", "redis_streams", "kafka")


class Plan(t.TypedDict):
    """One case, as the file has it."""

    folder: str
    config: dict[str, t.Any]
    key: str
    story: str
    deaths: list[str]
    others: list[int]


def main(path: str) -> None:
    """Run all cases of a plan."""
    for name in BROKERS:
        importlib.import_module(f"flask_qconsume.brokers.{name}")
    todo: list[Plan] = json.loads(pathlib.Path(path).read_text())
    todo.reverse()
    living: dict[int, tuple[Plan, int]] = {}
    wait = monkey.get_original("os", "waitpid")
    while todo or living:
        while todo and len(living) < AT_ONCE:
            plan = todo.pop()
            living[_born(plan, 0)] = plan, 0
        pid, status = wait(-1, 0)
        plan, number = living.pop(pid)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            living[_born(plan, number + 1)] = plan, number + 1


def _born(plan: Plan, number: int) -> int:
    pid = t.cast(int, gevent.os.fork_gevent())
    if pid:
        return pid
    code = 70
    try:
        _redirect(pathlib.Path(plan["folder"]) / f"life-{number}.log")
        code = _live(plan, number)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _redirect(path: pathlib.Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)


def _live(plan: Plan, number: int) -> int:
    """The life of one process; returns its exit code, if it comes to that."""
    signal.alarm(LONGEST)
    os.environ[LEDGER] = str(pathlib.Path(plan["folder"]) / "ledger")
    life.number = number
    life.end = dict(enumerate(plan["deaths"])).get(number, "")
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
    """As somebody else would, who does not die of it."""
    delay = SHORT_DELAY if plan["story"] == "short retry" else DELAY
    do = _do(plan["story"])
    consumers = AppConsumers(app, get_app_consumers(app).settings)
    body = {"n": 1, "do": do, "delay": delay, "key": plan["key"]}
    consumers.publish(plan["key"], body, key="k")
    if do == "stop":
        consumers.publish(plan["key"], {"n": 2, "do": "ack"}, key="k")
    consumers.close()


def _do(story: str) -> str:
    """What is done to the message: the story without how."""
    return story.removeprefix("short ").removesuffix(" in order")


def _end_when_over(app: Flask, plan: Plan) -> None:
    """Stop once all is handled, and nothing happens any more."""
    ledger = Ledger(pathlib.Path(plan["folder"]) / "ledger")
    seen, since = 0, time.monotonic()
    lease = plan["config"].get("QCONSUME_LEASE")
    quiet = QUIET_LEASE if lease else QUIET
    while True:
        gevent.sleep(0.1)
        if len(ledger.everything()) != seen:
            seen, since = len(ledger.everything()), time.monotonic()
        if time.monotonic() - since >= quiet:
            if _is_over(app, plan, ledger):
                os.kill(os.getpid(), signal.SIGTERM)
                return
            since = time.monotonic() - quiet + 1.0


def _is_over(app: Flask, plan: Plan, ledger: Ledger) -> bool:
    try:
        return _is_done(app, plan, ledger)
    except BrokerError:
        return False  # Asked again.


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
    """What is left on the broker, by somebody who comes afterwards."""
    consumers = AppConsumers(app, get_app_consumers(app).settings)
    (queue,) = consumers.topology.queues
    left = [consumers.broker.depth(name) for name in (queue.name, queue.suspects)]
    dead = [letter.headers for letter in consumers.broker.dead_letters(queue)]
    note("end", {"left": left, "dead": dead}, code)
    consumers.close()


if __name__ == "__main__":
    main(sys.argv[1])
