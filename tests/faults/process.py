"""Faults of a worker process: killed, halted, without memory, with a wrong clock.

Each fault is provoked on one of the running workers.
"""

from __future__ import annotations

import random
import signal
import typing as t
from collections.abc import Callable

from ..waiting import wait_for
from .fault import EVERYWHERE
from .fault import HEARTBEAT
from .fault import LEASE
from .fault import SESSION
from .fault import Fault
from .fault import FaultTarget

#: Seconds for which a process is halted: longer than any broker waits for it, which may
#: be two and a half heartbeats.
HALT = max(3 * HEARTBEAT, 2 * LEASE, 2 * SESSION)

#: Seconds until other workers get the messages of a process that is gone. On Redis a
#: worker checks for expired leases three times per lease.
TAKEN_OVER = max(LEASE * 4 / 3, SESSION)

#: Seconds that a process may take to start on a busy machine.
START = 10.0

#: How far a clock is set forward and back, in seconds.
STEPS = (3_600.0, -3_600.0)


def _kill(target: FaultTarget, chance: random.Random) -> None:
    target.kill_worker(chance.choice(target.workers))


def _halt(target: FaultTarget, chance: random.Random) -> None:
    """Halt a worker for so long that its later settlements must not count."""
    worker = chance.choice(target.workers)
    worker.send_signal(signal.SIGSTOP)
    try:
        target.last(HALT)
    finally:
        worker.send_signal(signal.SIGCONT)


def _hog(target: FaultTarget, chance: random.Random) -> None:
    _do(target, "hog", seconds=2 * HEARTBEAT + 1)


def _hoard(target: FaultTarget, chance: random.Random) -> None:
    """Let a handler take all memory, of which any code in its process may fail.

    The process may end as well: greenlet aborts it if no memory is left for a switch.
    """
    _do(target, "hoard", deadly=True, seconds=1)


def _killed_for_memory(target: FaultTarget, chance: random.Random) -> None:
    target.send(do="kill_once")
    target.replace_dead()


def _do(target: FaultTarget, task: str, *, deadly: bool = False, **body: t.Any) -> None:
    """Let a handler do a task, and wait until the task is done.

    :param deadly: Whether the process may die of the task.
    """
    n = target.send(do=task, **body)

    def done() -> int:
        if deadly:
            target.try_replace_dead()
        return target.fleet.ledger.counted()[n]

    wait_for(
        done,
        timeout=60,
        interval=0.2,
        message=lambda: f"{task!r} is done\n{target.fleet.logs()[-3000:]}",
    )


def _clock_steps(*steps: float) -> Callable[[FaultTarget, random.Random], None]:
    def apply(target: FaultTarget, chance: random.Random) -> None:
        """Run an additional worker, and set its clock."""
        clock = target.fleet.clock()
        worker = target.fleet.start(clock=clock)
        target.workers.append(worker)
        for seconds in steps:
            clock.step(seconds)
            target.last(1.0)
        target.workers.remove(worker)
        target.fleet.term(worker)

    return apply


FAULTS = (
    Fault("worker killed", _kill, EVERYWHERE, START + TAKEN_OVER, short=True),
    Fault("worker halted", _halt, EVERYWHERE, TAKEN_OVER, short=True),
    Fault("handler hogs the processor", _hog, EVERYWHERE, TAKEN_OVER, short=True),
    Fault("out of memory", _hoard, EVERYWHERE, START + TAKEN_OVER),
    Fault(
        "killed for want of memory", _killed_for_memory, EVERYWHERE, START + TAKEN_OVER
    ),
    Fault("clock set to and fro", _clock_steps(*STEPS, 0), EVERYWHERE, TAKEN_OVER),
)
