"""What the floors above ask of a broker. Each kind of broker has a package beside this.

Everything here may block, and is called from greenlets or from threads; a broker uses
:mod:`threading`'s primitives and sockets, which are cooperative in a process patched by
gevent, and never imports gevent itself.
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
from ..message import Message
from ..message import Outgoing
from ..settings import Settings
from .capabilities import Capabilities
from .link import Lane
from .link import Link
from .names import Name
from .names import check_unique
from .names import list_names
from .topology import Binding
from .topology import QueuePlan
from .topology import Topology


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter as it is listed and shown."""

    #: Unique in its queue while it lies there; what ``show`` and ``replay`` take.
    ref: str
    queue: str
    message: Message
    #: Its ``x-qconsume-*`` headers: reason, error, traceback, attempts, times.
    headers: Mapping[str, t.Any]


@dataclass(frozen=True)
class SuspectsStatus:
    """How the lane of a queue's suspects stands."""

    #: How many wait in it. On Kafka those that are being handled are among them.
    waiting: int
    #: When the oldest of them became a suspect, in seconds since 1970; ``None`` if none
    #: waits, or the broker cannot tell.
    since: float | None = None


@dataclass(frozen=True)
class QueueStatus:
    """How the messages of one queue stand; ``None`` is what the broker cannot tell."""

    #: Ready to be handled.
    waiting: int | None
    #: Held back until they are due: retries, and messages published with a delay.
    delayed: int | None
    #: With a worker and not settled yet, suspects included.
    in_hand: int | None
    suspects: SuspectsStatus | None
    dead_letters: int | None


@dataclass(frozen=True)
class HeldBack:
    """What a broker holds back until it is due, for all queues of an app together."""

    #: Numbers of retries, by the seconds of the wait queue that they are in; ``None``
    #: where the broker cannot tell.
    retries: Mapping[int, int | None]
    #: The same of messages that were published with a delay.
    delayed: Mapping[int, int | None]
    #: How many more are due already, and refused by a queue that is full or missing;
    #: ``None`` if the broker cannot tell.
    refused: int | None


class DeadLetters(abc.ABC):
    """The dead letters of one queue."""

    @abc.abstractmethod
    def count(self) -> int:
        """How many there are."""

    @abc.abstractmethod
    def __iter__(self) -> Iterator[DeadLetter]:
        """All of them, the oldest first; looking changes nothing."""

    @abc.abstractmethod
    def take(
        self,
        wanted: t.Callable[[DeadLetter], bool],
        replay: bool,
        progress: t.Callable[[], t.Any] = lambda: None,
    ) -> int:
        """Remove those that are ``wanted``, and replay them if so asked.

        A replay puts a copy into the queue that failed (never the exchange), its
        attempts at zero and our failure's headers gone; confirmed, then removed here.

        :param progress: Called once per dead letter looked at.
        :returns: How many were taken.
        """


class Broker(abc.ABC):
    """One app's broker in one process. Opens nothing before it is used.

    Safe in any thread or greenlet. After a fork, the child opens its own connections.
    """

    #: What it can do; one of :meth:`all_capabilities`.
    capabilities: Capabilities

    #: What :meth:`connect` makes. A subclass may put one of its own there.
    link: t.ClassVar[type[Link]]

    def __init__(self, settings: Settings, topology: Topology) -> None:
        self.settings = settings
        self.topology = topology

    def find_bindings(
        self, look: t.Callable[[str], Iterable[Binding]]
    ) -> list[Binding]:
        """Look up bindings to the app's exchange, and to that without the prefix.

        Earlier versions bound the queues to the latter, whatever their prefix. A user
        who may not look there any more has nothing there.

        :param look: Reads the bindings to one exchange.
        """
        found = list(look(self.topology.exchange))
        former = self.settings.bare_exchange
        if former != self.topology.exchange:
            with contextlib.suppress(BrokerRefused):
                found += look(former)
        return found

    @classmethod
    def all_capabilities(cls) -> tuple[Capabilities, ...]:
        """All that its capabilities may be: one for each kind of queues it has."""
        return (cls.capabilities,)

    def names(self) -> Iterator[Name]:
        """Every name that the app uses on this broker."""
        for plan in self.topology.queues:
            yield from list_names(plan)

    def companion_names(self, plan: QueuePlan) -> tuple[str, str]:
        """What the suspects and the dead letters of a queue lie in on this broker."""
        return plan.suspects, plan.dead

    def check_names(self) -> None:
        """Refuse names that the broker cannot have, or that would meet there.

        :raises RegistrationError: that says which it is.
        """
        check_unique(self.names(), self.capabilities.broker)

    @property
    def can_be_consumed(self) -> bool:
        """Whether a consumer can ever get what this process publishes.

        In a broker within one process there has to be a worker in this very process.
        """
        return True

    def note_worker(self) -> None:
        """Note that a worker of this process consumes, or is about to."""
        return

    @abc.abstractmethod
    def connect(self, plan: QueuePlan, lane: Lane, prefetch: int) -> Link:
        """Open a connection that consumes one queue.

        :raises BrokerUnavailable: if there is no connection to be had.
        :raises BrokerRefused: if the broker refuses us.
        """

    @abc.abstractmethod
    def publish(
        self, messages: Sequence[Outgoing], timeout: float
    ) -> list[Exception | None]:
        """Publish, pipelined; return when each is confirmed or has failed.

        The topology is declared before the first one (``QCONSUME_DECLARE``).

        :param timeout: Seconds for all of them, reconnecting included.
        :returns: For each ``None``, or a :class:`BrokerError`.
        :raises UnsupportedByBroker: before anything is sent, if one of them asks for
            what the broker cannot do.
        """

    @abc.abstractmethod
    def declare(self) -> None:
        """Declare the topology, or check it, as ``QCONSUME_DECLARE`` says. Idempotent.

        :raises TopologyMismatch: if the broker holds something of that name with other
            arguments, or (``passive``) not at all.
        """

    def declare_delays(self) -> None:
        """Declare all that ever holds messages back, where the broker needs anything.

        Otherwise that is declared when it is used first, which a process whose
        ``QCONSUME_DECLARE`` is ``passive`` or ``never`` does not do.
        """
        return

    @abc.abstractmethod
    def stale_bindings(self) -> list[Binding]:
        """Bindings of our queues, by :meth:`find_bindings`, that no consumer asks for.

        :raises UnsupportedByBroker: if the broker cannot be asked.
        """

    @abc.abstractmethod
    def unbind(self, bindings: Sequence[Binding]) -> None:
        """Remove bindings."""

    @abc.abstractmethod
    def depth(self, queue: str) -> int:
        """How many messages wait in a queue (any name); 0 if it does not exist."""

    def caveats(self) -> list[str]:
        """What the server's own configuration takes from the guarantee, in sentences.

        :raises BrokerError: if the broker cannot be asked.
        """
        return []

    def is_reachable(self) -> bool:
        """Whether anything answers at the broker's address now, be it a refusal.

        Asked once a second while a connection is awaited; cheap, raises nothing. A
        client that comes back by itself has no need of it, and says yes.
        """
        return True

    def read_suspects(self, plan: QueuePlan) -> SuspectsStatus:
        """How the lane of one queue's suspects stands; looking changes nothing.

        AMQP cannot look at a message without taking it, and one that is given back is
        marked as delivered, which is a death in the lane: there nobody can tell since
        when it waits, but who has it in hand.
        """
        return SuspectsStatus(self.depth(plan.suspects))

    def read_statuses(self, plans: Sequence[QueuePlan]) -> list[QueueStatus]:
        """How the messages of queues stand; looking changes nothing."""
        return [self._read_status(plan) for plan in plans]

    def read_held_back(self) -> HeldBack | None:
        """What is held back for the whole app; ``None`` where each queue's is known."""
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
        """Close what is open. Publishing again reopens it."""

    def count_kept_in_process(self) -> int:
        """How many messages end with this process, since nothing outside has them."""
        return 0

    def abandon_after_fork(self) -> None:
        """See to it that a forked child, which makes its own, never destroys this."""
        return
