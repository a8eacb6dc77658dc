"""One fault of the catalogue, and what it may touch.

Knows neither how a run goes nor how it is judged. The times of the protocols are fixed
here, so that a fault can say how long its own detection may take.
"""

from __future__ import annotations

import random
import subprocess
import typing as t
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

from ..waiting import last
from ..waiting import wait_for

if t.TYPE_CHECKING:
    from flask_qconsume.extension import AppConsumers

    from ..fleet.workers import Fleet
    from ..servers import Vhost
    from .proxy import Proxy

#: Where a fault may be provoked: kinds of brokers.
AMQP = frozenset({"quorum", "classic"})
REDIS = frozenset({"redis", "streams"})
KAFKA = frozenset({"kafka", "cluster"})
EVERYWHERE = AMQP | REDIS | KAFKA

#: ``QCONSUME_HEARTBEAT`` of a run, in seconds: a silent connection is given up after
#: two of them.
HEARTBEAT = 2.0
#: ``QCONSUME_LEASE`` of a run, in seconds, on Redis.
LEASE = 3.0
#: After how many seconds Kafka holds a silent member of a group for dead.
SESSION = 3.0
#: ``QCONSUME_PUBLISH_TIMEOUT`` of a run, in seconds.
PUBLISH_TIMEOUT = 5.0


@dataclass
class Scene:
    """What a fault may touch: one broker, the proxies before it, and the workers."""

    #: The name of the place: ``"quorum"``.
    place: str
    #: The broker: a `RabbitMQ`, a `Redis`, a `Kafka` or a `KafkaCluster`.
    server: t.Any
    #: The virtual host, on RabbitMQ.
    vhost: Vhost | None
    #: What stands between us and the broker: one for each of the broker's processes.
    proxies: Sequence[Proxy]
    fleet: Fleet
    #: Of the app that publishes, through the proxies as well.
    consumers: AppConsumers
    #: Publishes one message that tells a handler what to do, such as ``do="hog",
    #: seconds=6``; it is in the ledger like any other. Returns its number.
    send: Callable[..., int]
    #: The workers that run now. One that ends by itself fails the run.
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    #: Seconds until the last fault was noticed by us, where a fault measures that.
    noticed: float | None = None

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start one more worker, without waiting for it."""
        worker = self.fleet.start(ready=False)
        self.workers.append(worker)
        return worker

    def kill_worker(self, worker: subprocess.Popen[bytes]) -> None:
        """SIGKILL one of them, and start another in its place, as a supervisor does."""
        self.workers.remove(worker)
        self.fleet.kill(worker)
        self.start_worker()

    def replace_dead(self, timeout: float = 30) -> None:
        """Wait until a worker has died of what it was told, and start another."""
        wait_for(self.replaced_dead, timeout)

    def replaced_dead(self) -> bool:
        """Start another worker for each that has died; whether there was any."""
        dead = [each for each in self.workers if each.poll() is not None]
        for worker in dead:
            self.workers.remove(worker)
            self.start_worker()
        return bool(dead)

    @staticmethod
    def last(seconds: float) -> None:
        """Let a fault last for this many seconds."""
        last(seconds)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, and is right again when :attr:`apply` returns."""

    #: For people: ``"connection reset"``.
    name: str
    #: Provokes it, and returns once it is over. An `AssertionError` says that what it
    #: waited for did not come; the run goes on and has failed.
    apply: Callable[[Scene, random.Random], None]
    #: Names of the places where it can be provoked.
    brokers: frozenset[str] = EVERYWHERE
    #: Seconds that the protocol's own detection may take, which may pass in addition
    #: to one reconnect interval before consuming goes on.
    detection: float = 0.0
    #: Whether it loses what ``plan`` names (a failover to a replica that is behind, a
    #: flush of the data): counted apart, in rows of its own.
    told_loss: bool = False
    #: How often as much as is in flight may be handled again: once for each time that
    #: all is cut off, and once more where a broker is killed that may have written down
    #: nothing of what was acknowledged last.
    returns: int = 1
    #: Whether the short profile uses it.
    short: bool = False
    #: How often it is chosen, compared with others.
    weight: int = 1
