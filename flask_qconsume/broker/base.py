"""The interface of a broker, and the types of its answers.

Each broker has a package of its own in ``brokers/``, which implements this interface.
Every method may block, and may be called from greenlets or threads. A broker uses
:mod:`threading` and sockets, which gevent's patching makes cooperative, and never
imports gevent.
"""

from __future__ import annotations

import abc
import contextlib
import typing as t
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import BrokerRefused
from ..errors import UnsupportedByBroker
from ..message import Outgoing
from ..settings import Settings
from .capabilities import Capabilities
from .dead_letters import DeadLetters
from .link import Lane
from .link import Link
from .names import Name
from .names import check_unique
from .names import list_names
from .topology import Binding
from .topology import QueuePlan
from .topology import Topology


@dataclass(frozen=True)
class SuspectsStatus:
    """Number and age of the messages that wait in a consumer's queue of suspects."""

    #: Number of waiting suspects; on Kafka, also of those being handled.
    waiting: int
    #: Time at which the oldest of them became a suspect, in seconds since 1970;
    #: ``None`` if none waits, or the broker cannot tell.
    since: float | None = None


@dataclass(frozen=True)
class QueueStatus:
    """Counts of one queue's messages; ``None`` if the broker does not tell a count."""

    #: Messages ready to be handled; on Kafka, also those being handled.
    waiting: int | None
    #: Messages held back until they are due: retries, and those published with a delay.
    delayed: int | None
    #: Messages that a worker has fetched and not settled yet, suspects included.
    in_hand: int | None
    suspects: SuspectsStatus | None
    dead_letters: int | None
    #: Time since which the oldest of the waiting messages has been ready, in seconds
    #: since 1970. A retry is ready when its delay is over; a message that a worker gave
    #: back is ready since the first time. ``None`` also if no message waits.
    oldest: float | None = None
    #: On Kafka: records behind the offsets that the consumer group has committed,
    #: without retries that are not due; ``None`` elsewhere.
    lag: int | None = None


def find_oldest(times: Sequence[float | None]) -> float | None:
    """Return the earliest time; ``None`` if there is none, or one is unknown."""
    known = [each for each in times if each is not None]
    return min(known, default=None) if len(known) == len(times) else None


@dataclass(frozen=True)
class HeldBack:
    """Numbers of delayed messages, each number summed up over all queues of an app."""

    #: Counts of retries, by the delay in seconds of the wait queue that holds them;
    #: ``None`` if the broker cannot tell.
    retries: Mapping[int, int | None]
    #: Counts of messages published with a delay, by the same delays.
    delayed: Mapping[int, int | None]
    #: Number of messages that are due, but refused by a queue that is full or missing;
    #: ``None`` if the broker cannot tell.
    refused: int | None


class Broker(abc.ABC):
    """One app's access to its broker, in one process; connects at the first use.

    Safe in any thread or greenlet. After a fork, the child opens its own connections.
    """

    #: One of :meth:`all_capabilities`.
    capabilities: Capabilities

    #: Class of the links that :meth:`connect` opens. A subclass may replace it.
    link: t.ClassVar[type[Link]]

    def __init__(self, settings: Settings, topology: Topology) -> None:
        self.settings = settings
        self.topology = topology

    def find_bindings(
        self, read: t.Callable[[str], Iterable[Binding]]
    ) -> list[Binding]:
        """Find the bindings to the app's exchange, under its new and its old name.

        The old name is the name without the queue prefix, which earlier versions of
        this package used. If the broker denies access to the old name, the app has no
        bindings there.

        :param read: Function that reads the bindings to one exchange.
        """
        bindings = list(read(self.topology.exchange))
        former = self.settings.bare_exchange
        if former != self.topology.exchange:
            with contextlib.suppress(BrokerRefused):
                bindings += read(former)
        return bindings

    @classmethod
    def all_capabilities(cls) -> tuple[Capabilities, ...]:
        """Return the capabilities of each kind of queue that the broker has."""
        return (cls.capabilities,)

    def names(self) -> Iterator[Name]:
        """Yield all names of queues and exchanges that the app uses on this broker."""
        for plan in self.topology.queues:
            yield from list_names(plan)

    def companion_names(self, plan: QueuePlan) -> tuple[str, str]:
        """Return the names of the queues for a queue's suspects and dead letters."""
        return plan.suspects, plan.dead

    def check_names(self) -> None:
        """Refuse names that the broker does not allow, and names used for two things.

        :raises RegistrationError: with the name.
        """
        check_unique(self.names(), self.capabilities.broker)

    @property
    def can_be_consumed(self) -> bool:
        """True if any consumer can get a message that this process publishes.

        False for ``memory://`` as long as this process runs no worker, since no other
        process can read the messages.
        """
        return True

    def note_worker(self) -> None:
        """Remember that this process runs a worker, or is about to start one."""
        return

    @abc.abstractmethod
    def connect(self, plan: QueuePlan, lane: Lane, prefetch: int) -> Link:
        """Open a connection that consumes one queue.

        :raises BrokerUnavailable: if the broker cannot be reached.
        :raises BrokerRefused: if the broker refuses the login or the queue.
        """

    @abc.abstractmethod
    def publish(
        self, messages: Sequence[Outgoing], timeout: float
    ) -> list[Exception | None]:
        """Publish messages together; return when each is confirmed or has failed.

        The topology is declared before the first message (``QCONSUME_DECLARE``).

        :param timeout: Seconds for all messages, reconnecting included.
        :returns: For each message ``None``, or a :class:`BrokerError`.
        :raises UnsupportedByBroker: before any message is sent, if one of them has an
            option that the broker does not support.
        """

    @abc.abstractmethod
    def declare(self) -> None:
        """Declare or check the topology, as ``QCONSUME_DECLARE`` says; may be repeated.

        :raises TopologyMismatch: if a queue or exchange exists with other arguments,
            or, with ``passive``, does not exist.
        """

    def declare_delays(self) -> None:
        """Declare the wait queues or topics for all delays, if the broker needs any.

        With ``QCONSUME_DECLARE = "auto"``, a process declares a wait queue or topic
        before its first use; with ``passive`` or ``never``, all must exist already.
        """
        return

    def list_ddl(self) -> list[str]:
        """Return the SQL statements that declare the topology, without connecting.

        :raises UnsupportedByBroker: if the broker is not a database.
        """
        raise UnsupportedByBroker(
            f"{self.capabilities.broker} is not a database, so there is no SQL that"
            " declares the queues. Run 'flask qconsume declare' without '--sql'."
        )

    @abc.abstractmethod
    def stale_bindings(self) -> list[Binding]:
        """Find bindings on the broker that the app's code no longer declares.

        :raises UnsupportedByBroker: if the broker cannot list bindings.
        """

    @abc.abstractmethod
    def unbind(self, bindings: Sequence[Binding]) -> None:
        """Remove these bindings from the broker."""

    @abc.abstractmethod
    def depth(self, queue: str) -> int:
        """Return the number of waiting messages in a queue; 0 without the queue."""

    def caveats(self) -> list[str]:
        """Return a sentence for each setting of the server that may lose messages.

        :raises BrokerError: if the broker does not answer.
        """
        return []

    def is_reachable(self) -> bool:
        """Return whether the broker answers at all, even by a refusal; never raise.

        Workers call this once a second during an outage, so it must be cheap. A broker
        whose client library reconnects by itself always returns true.
        """
        return True

    def read_suspects(self, plan: QueuePlan) -> SuspectsStatus:
        """Read the number and the age of one queue's suspects, without changing them.

        On RabbitMQ, only the worker that holds a suspect knows the suspect's age. Any
        other process would have to fetch the suspect and return it. RabbitMQ then marks
        it as redelivered, and a redelivery of a suspect counts as a crash.
        """
        return SuspectsStatus(self.depth(plan.suspects))

    def read_statuses(self, plans: Sequence[QueuePlan]) -> list[QueueStatus]:
        """Count the messages of each queue, without changing them."""
        return [self._read_status(plan) for plan in plans]

    def read_backlog(
        self, plans: Sequence[QueuePlan], timeout: float
    ) -> list[QueueStatus]:
        """Do the same as :meth:`read_statuses`, but cheaply: every few seconds.

        A number that the broker cannot tell at once is ``None``. A thread or greenlet
        must not call this while another one does.

        :param timeout: Seconds that one answer of the broker may take.
        :raises BrokerError: if the broker does not answer.
        """
        return self.read_statuses(plans)

    def read_held_back(self) -> HeldBack | None:
        """Count all delayed messages; ``None`` if :meth:`read_statuses` counts them."""
        return None

    def _read_status(self, plan: QueuePlan) -> QueueStatus:
        return QueueStatus(
            waiting=self.depth(plan.name),
            delayed=None,
            in_hand=None,
            suspects=self.read_suspects(plan),
            dead_letters=self.dead_letters(plan).count(),
        )

    @abc.abstractmethod
    def dead_letters(self, plan: QueuePlan) -> DeadLetters:
        """The dead letters of one queue."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close all connections. Publishing again opens new ones."""

    def count_kept_in_process(self) -> int:
        """Count messages that exist only in this process, as with ``memory://``."""
        return 0

    def abandon_after_fork(self) -> None:
        """In a forked child: keep this object, so that its connections stay open.

        Python would otherwise destroy the object, and the destructor would close
        connections that belong to the parent process.
        """
        return
