"""Kafka's order within a key, over rebalances and a broker's restart."""

from __future__ import annotations

import itertools
import random
import threading
import time

import pytest

from flask_qconsume import BrokerError

from ..fleet.ledger import Line
from .conftest import MakeStage
from .conftest import Stage

SECONDS = 180
#: How often a worker joins or leaves.
TURN = 3.0
MOST = 4
KEYS = 40
#: Messages a second.
RATE = 200


class Publishing:
    """Publishes a steady stream of numbers, each with the key of its remainder."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        #: How many were confirmed; a number follows when the one before it is.
        self.confirmed = 0

    def __enter__(self) -> Publishing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        """One for each key at a time, so that none overtakes its predecessor."""
        for turn in itertools.count():
            while not self._published(range(turn * KEYS, (turn + 1) * KEYS)):
                if self._stop.is_set():
                    return
            self.confirmed += KEYS
            if self._stop.wait(KEYS / RATE):
                return

    def _published(self, numbers: range) -> bool:
        """Again until confirmed: it may come twice, but not behind a later one."""
        messages = [
            ("work", {"n": n, **_deed(n)}, {"key": str(n % KEYS)}) for n in numbers
        ]
        try:
            self._stage.consumers.publish_many(messages)
        except BrokerError:
            return False
        return True


def _deed(n: int) -> dict[str, object]:
    """Every now and then one fails, and is retried before the next one of its key."""
    return {"do": "fail", "times": 1} if n % 97 == 0 else {"seconds": 0.01}


@pytest.mark.long
@pytest.mark.deadline(900)
def test_the_order_within_a_key_is_kept_over_rebalances(make_stage: MakeStage) -> None:
    stage = make_stage("cluster", ORDERING="key", RETRY={"min_delay": 0.2})
    stage.fleet.start()
    with Publishing(stage) as publishing:
        _join_and_leave(stage)
    numbers = range(publishing.confirmed)
    stage.await_done(numbers, timeout=180)

    lines = stage.ledger.everything()
    out_of_order, together = _faults(lines)
    doubles = sum(count > 1 for count in stage.ledger.counted().values())
    print(
        f"\n{len(numbers)} messages, {KEYS} keys, {len(stage.fleet.workers)} workers,"
        f" 0 lost, {doubles} handled twice, {len(out_of_order)} out of order,"
        f" {len(together)} beside another of their key"
    )
    assert stage.dead() == []
    assert (out_of_order, together) == ([], [])


def _join_and_leave(stage: Stage) -> None:
    """For three minutes; meanwhile one of the brokers is away for a while."""
    chance = random.Random(2)
    began = time.monotonic()
    broker = stage.server.brokers[1]
    away = threading.Thread(target=_restart, args=(broker, SECONDS / 3))
    away.start()
    while time.monotonic() < began + SECONDS:
        running = [each for each in stage.fleet.workers if each.poll() is None]
        if len(running) == 1 or (len(running) < MOST and chance.random() < 0.5):
            stage.fleet.start(ready=False)
        else:
            stage.fleet.term(chance.choice(running))
        time.sleep(TURN)  # The subject of this test is the coming and going itself.
    away.join()


def _restart(broker: object, after: float) -> None:
    time.sleep(after)
    broker.stop()  # type: ignore[attr-defined]
    time.sleep(10)
    broker.start()  # type: ignore[attr-defined]


def _faults(lines: list[Line]) -> tuple[list[Line], list[Line]]:
    """What began before its predecessor was done, and beside another of its key."""
    done: set[int] = set()
    busy: dict[int, tuple[int, int]] = {}
    out_of_order, together = [], []
    for line in lines:
        key = line.n % KEYS
        if line.what == "done":
            done.add(line.n)
            busy.pop(key, None)
            continue
        if line.n >= KEYS and line.n - KEYS not in done:
            out_of_order.append(line)
        # The same one again is another attempt, here or elsewhere.
        if key in busy and busy[key][0] != line.n:
            together.append(line)
        busy[key] = (line.n, line.pid)
    return out_of_order, together
