"""What may happen to a process of ours: it is killed, halted, starved, or told lies.

Each fault is provoked on one worker of those that run. Knows no broker.
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
from .fault import Scene

#: Seconds for which a process is halted: more than any broker waits for it, which may
#: be two heartbeats and a half.
HALT = max(3 * HEARTBEAT, 2 * LEASE, 2 * SESSION)

#: Seconds until a broker gives to others what a process had that is gone without a
#: word; one of them has to look, which it does three times a lease.
TAKEN_OVER = max(LEASE * 4 / 3, SESSION)

#: Seconds that a process may take to start on a busy machine.
START = 10.0

#: How far a clock is set forward and back, in seconds.
STEPS = (3_600.0, -3_600.0)


def _kill(scene: Scene, chance: random.Random) -> None:
    scene.kill_worker(chance.choice(scene.workers))


def _halt(scene: Scene, chance: random.Random) -> None:
    """Others take over meanwhile; what it settles afterwards must not count."""
    worker = chance.choice(scene.workers)
    worker.send_signal(signal.SIGSTOP)
    try:
        scene.last(HALT)
    finally:
        worker.send_signal(signal.SIGCONT)


def _hog(scene: Scene, chance: random.Random) -> None:
    _do(scene, "hog", seconds=2 * HEARTBEAT + 1)


def _hoard(scene: Scene, chance: random.Random) -> None:
    """The handler fails of it, and so may whatever else runs in its process.

    So may the process: greenlet ends one that has no memory left to switch.
    """
    _do(scene, "hoard", deadly=True, seconds=1)


def _killed_for_memory(scene: Scene, chance: random.Random) -> None:
    scene.send(do="kill_once")
    scene.replace_dead()


def _do(scene: Scene, deed: str, *, deadly: bool = False, **body: t.Any) -> None:
    """Have a handler do something, and wait until it has done it.

    :param deadly: Whether its process may die of it.
    """
    n = scene.send(do=deed, **body)

    def done() -> int:
        if deadly:
            scene.replaced_dead()
        return scene.fleet.ledger.counted()[n]

    wait_for(
        done,
        timeout=60,
        interval=0.2,
        message=lambda: f"{deed!r} is done\n{scene.fleet.logs()[-3000:]}",
    )


def _clock_steps(*steps: float) -> Callable[[Scene, random.Random], None]:
    def apply(scene: Scene, chance: random.Random) -> None:
        """One more worker runs, whose clock is set while it does."""
        clock = scene.fleet.clock()
        worker = scene.fleet.start(clock=clock)
        scene.workers.append(worker)
        for seconds in steps:
            clock.step(seconds)
            scene.last(1.0)
        scene.workers.remove(worker)
        scene.fleet.term(worker)

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
