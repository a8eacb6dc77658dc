"""The order within a key, while workers come and go, and a broker restarts."""

from __future__ import annotations

import itertools
import random
import threading
import typing as t

import pytest

from flask_qconsume import BrokerError

from ..fleet.ledger import Line
from ..servers import KafkaCluster
from ..servers.sqlite import SQLiteFile
from ..waiting import wait_for
from .conftest import Deployment
from .conftest import MakeDeployment

#: How many times a worker joins or leaves.
TURNS = 60
#: The turn before which one of the brokers goes away.
OUTAGE_TURN = 20
#: Seconds until that broker is back.
OUTAGE_SECONDS = 10
MAX_WORKERS = 4
KEYS = 40
#: Messages per second.
RATE = 200
#: Messages that are confirmed between two turns, in three seconds or more.
MESSAGES_PER_TURN = 3 * RATE


class Publishing:
    """A publisher of consecutive numbers; a number's key is its remainder."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        #: Confirmed messages. A number is published after the confirmation of the last.
        self.confirmed = 0

    def __enter__(self) -> Publishing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def await_more(self, number: int) -> None:
        """Wait until this many more messages are confirmed."""
        wanted = self.confirmed + number
        wait_for(lambda: self.confirmed >= wanted, 60)

    def _run(self) -> None:
        """Publish one message for each key at a time, to keep their order."""
        for turn in itertools.count():
            while not self._published(range(turn * KEYS, (turn + 1) * KEYS)):
                if self._stop.is_set():
                    return
            self.confirmed += KEYS
            if self._stop.wait(KEYS / RATE):
                return

    def _published(self, numbers: range) -> bool:
        """Publish a message until it is confirmed; it may come twice, but in order."""
        messages = [
            ("work", {"n": n, **_deed(n)}, {"key": str(n % KEYS)}) for n in numbers
        ]
        try:
            self._deployment.consumers.publish_many(messages)
        except BrokerError:
            return False
        return True


def _deed(n: int) -> dict[str, object]:
    """Some messages fail, and are retried before the next message of their key."""
    return {"do": "fail", "times": 1} if n % 97 == 0 else {"seconds": 0.01}


@pytest.mark.long
@pytest.mark.deadline(900)
@pytest.mark.parametrize("broker", ["cluster", "postgresql", "sqlite"])
def test_the_order_within_a_key_is_kept_over_rebalances(
    make_deployment: MakeDeployment, broker: str
) -> None:
    deployment = make_deployment(broker, ORDERING="key", RETRY={"min_delay": 0.2})
    deployment.fleet.start()
    with Publishing(deployment) as publishing:
        _join_and_leave(deployment, publishing)
    numbers = range(publishing.confirmed)
    deployment.await_done(numbers, timeout=180)

    lines = deployment.ledger.everything()
    out_of_order, together = _faults(lines)
    doubles = sum(count > 1 for count in deployment.ledger.counted().values())
    print(
        f"\n{len(numbers)} messages, {KEYS} keys,"
        f" {len(deployment.fleet.workers)} workers,"
        f" 0 lost, {doubles} handled twice, {len(out_of_order)} out of order,"
        f" {len(together)} beside another of their key"
    )
    assert deployment.dead() == []
    assert (out_of_order, together) == ([], [])


def _join_and_leave(deployment: Deployment, publishing: Publishing) -> None:
    """Start or stop a worker in each turn; a broker is away during some turns."""
    chance = random.Random(2)
    outage = threading.Thread(target=_restart_broker, args=(deployment.server,))
    for turn in range(TURNS):
        if turn == OUTAGE_TURN:
            outage.start()
        running = [each for each in deployment.fleet.workers if each.poll() is None]
        if len(running) == 1 or (len(running) < MAX_WORKERS and chance.random() < 0.5):
            deployment.fleet.start(ready=False)
        else:
            deployment.fleet.term(chance.choice(running))
        publishing.await_more(MESSAGES_PER_TURN)
    outage.join()


def _restart_broker(server: t.Any) -> None:
    """Let one broker of a cluster be away, or the only one; a file is only locked."""
    if isinstance(server, SQLiteFile):
        with server.frozen(OUTAGE_SECONDS):
            return
    broker = server.brokers[1] if isinstance(server, KafkaCluster) else server
    broker.restart(OUTAGE_SECONDS)


def _faults(lines: list[Line]) -> tuple[list[Line], list[Line]]:
    """Find messages that began too early, or beside another one of their key."""
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
        # The same number again is another attempt.
        if key in busy and busy[key][0] != line.n:
            together.append(line)
        busy[key] = (line.n, line.pid)
    return out_of_order, together
