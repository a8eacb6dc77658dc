"""A fault of the catalogue, and the objects that it may act on.

The times of the protocols are set here, since a fault declares how many seconds its
detection may take.
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
    from ..servers import Database
    from ..servers import Vhost
    from .proxy import Proxy

#: Names of broker setups on which a fault may be provoked.
AMQP = frozenset({"quorum", "classic"})
REDIS = frozenset({"redis", "streams"})
KAFKA = frozenset({"kafka", "cluster"})
#: A server behind a proxy; a file has neither.
POSTGRESQL = frozenset({"postgresql"})
SQLITE = frozenset({"sqlite"})
NETWORKED = AMQP | REDIS | KAFKA | POSTGRESQL
EVERYWHERE = NETWORKED | SQLITE

#: ``QCONSUME_HEARTBEAT`` of a run, in seconds. A connection that is silent for two
#: heartbeats is closed.
HEARTBEAT = 2.0
#: ``QCONSUME_LEASE`` of a run, in seconds, on Redis and on databases.
LEASE = 3.0
#: Seconds after which Kafka removes a silent member from its group.
SESSION = 3.0
#: ``QCONSUME_PUBLISH_TIMEOUT`` of a run, in seconds.
PUBLISH_TIMEOUT = 5.0


@dataclass
class FaultTarget:
    """The broker, the proxies and the workers that a fault may act on."""

    #: The name of the setup: ``"quorum"``.
    broker: str
    #: The broker: a `RabbitMQ`, a `Redis`, a `KafkaCluster`, a `SQLiteFile`, …
    server: t.Any
    #: The virtual host, on RabbitMQ.
    vhost: Vhost | None
    #: The database, on PostgreSQL.
    database: Database | None
    #: Proxies between workers and broker: one for each process of the broker.
    proxies: Sequence[Proxy]
    fleet: Fleet
    #: The app that publishes, through the proxies too.
    consumers: AppConsumers
    #: Publishes one message with a task for the handler, such as ``do="hog",
    #: seconds=6``, and returns its number. The ledger has it like any other message.
    send: Callable[..., int]
    #: The running workers. A worker that ends without a fault fails the run.
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    #: Seconds until a client noticed the last fault, if the fault measures it.
    noticed: float | None = None

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start one more worker, without waiting for it."""
        worker = self.fleet.start(ready=False)
        self.workers.append(worker)
        return worker

    def kill_worker(self, worker: subprocess.Popen[bytes]) -> None:
        """Kill a worker by SIGKILL, and start another one, as a supervisor does."""
        self.workers.remove(worker)
        self.fleet.kill(worker)
        self.start_worker()

    def replace_dead(self, timeout: float = 30) -> None:
        """Wait until a worker has died of its task, and start another one."""
        wait_for(self.try_replace_dead, timeout)

    def try_replace_dead(self) -> bool:
        """Start another worker for each dead one; return whether there was any."""
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
    """One failure, which is over when :attr:`apply` returns."""

    #: Name in reports: ``"connection reset"``.
    name: str
    #: Provokes the fault, and returns once it is over. An `AssertionError` means that
    #: an expected effect did not come: the run has failed, and continues.
    apply: Callable[[FaultTarget, random.Random], None]
    #: Names of the setups on which it can be provoked.
    brokers: frozenset[str] = EVERYWHERE
    #: Seconds that the protocol may take to detect the fault. Consuming must resume
    #: within this time and one reconnect interval.
    detection: float = 0.0
    #: Whether it may lose messages, as ``plan`` warns: a failover to a replica that is
    #: behind, a flush of the data. Reports count such faults separately.
    may_lose: bool = False
    #: How often all messages in flight may be handled again: once for each loss of all
    #: connections, and once more if a killed broker may not have stored the last
    #: acknowledgements.
    returns: int = 1
    #: Whether the short profile uses it.
    short: bool = False
    #: Relative frequency with which it is drawn.
    weight: int = 1
