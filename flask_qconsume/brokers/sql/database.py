"""The interface of a database, which SQLite and PostgreSQL implement.

Every method may block, and may be called from greenlets or threads at the same time.
"""

from __future__ import annotations

import abc
import typing as t
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

import sqlalchemy as sa

from ...errors import TopologyMismatch

#: Seconds that a transaction may take, unless the caller has another limit.
CALL_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Step:
    """One statement of a transaction, with its parameters, which may be lists."""

    statement: sa.Executable
    parameters: Mapping[str, t.Any] = field(default_factory=dict)


class TablesMissing(TopologyMismatch):
    """The database has no tables of this package yet."""


class NewMessage(t.NamedTuple):
    """A message for one queue, as ``publish`` stores it."""

    queue: str
    #: Minus the priority.
    rank: int
    #: Seconds until the message is ready, or ``None``.
    delay: float | None
    #: Seconds after which an unread message is removed, delay included, or ``None``.
    expires: float | None
    key: str | None
    meta: str
    body: bytes


@dataclass(frozen=True)
class Insert:
    """New messages, as a step of a transaction."""

    messages: Sequence[NewMessage]


class StepResult(t.NamedTuple):
    """The result of a step."""

    #: The number of rows that the statement changed.
    changed: int
    #: The first row of the result, if the statement has a result.
    row: Sequence[t.Any] | None = None


class Channel(abc.ABC):
    """Announces to other processes of the database which queues have new messages.

    An announcement is a hint that may be lost: readers also look without any.
    """

    #: Seconds after which a reader looks without an announcement.
    poll_interval: float = 1.0

    def start(self) -> None:
        """Begin to listen. Called once, before this process reads its first queue."""
        return

    @abc.abstractmethod
    def announce(self, queues: Collection[str]) -> None:
        """Announce queues to other processes, after a commit; never raise."""

    def has_changes(self) -> bool:
        """Return false if no process has committed anything since the last call.

        Called several times a second. A channel that cannot tell returns true.
        """
        return True

    @abc.abstractmethod
    def close(self) -> None:
        """Stop listening; never raise."""


class PollingChannel(Channel):
    """Sends no announcements; readers look ten times a second."""

    poll_interval = 0.1

    def announce(self, queues: Collection[str]) -> None:
        return

    def close(self) -> None:
        return


#: Function that wakes the readers of the announced queues; ``None`` means all queues.
WakeReaders = Callable[[Collection[str] | None], None]


class Database(abc.ABC):
    """One database, used by one app in one process.

    The methods raise :exc:`.BrokerUnavailable` if the database is away, busy for longer
    than the time limit, or full; :exc:`.BrokerRefused` for a lack of permission; and
    :exc:`.TablesMissing` if there are no tables.
    """

    #: The name of the database's software, for errors.
    name: t.ClassVar[str]

    @abc.abstractmethod
    def write(
        self,
        steps: Sequence[Step | Insert],
        timeout: float = CALL_TIMEOUT_SECONDS,
    ) -> list[StepResult]:
        """Execute all steps in one transaction, and commit it.

        :param timeout: Seconds for the transaction, waiting for locks included.
        :raises AnswerLost: if the database may have committed the transaction.
        """

    @abc.abstractmethod
    def read(
        self,
        statement: sa.Executable,
        parameters: Mapping[str, t.Any] | None = None,
        timeout: float = CALL_TIMEOUT_SECONDS,
    ) -> list[Sequence[t.Any]]:
        """Return the rows of a quick query: at most some hundred, found by an index."""

    @abc.abstractmethod
    def read_one(
        self,
        statement: sa.Executable,
        parameters: Mapping[str, t.Any] | None = None,
        timeout: float = CALL_TIMEOUT_SECONDS,
    ) -> Sequence[t.Any]:
        """Return the only row of a query that may look at many rows: a count."""

    @abc.abstractmethod
    def claim(self, link: int, queue: str, room: int) -> list[Sequence[t.Any]]:
        """Give up to ``room`` ready messages of a queue to a link, and return them.

        :returns: The columns ``CLAIMED_COLUMNS``, in the order of handling.
        """

    @abc.abstractmethod
    def find_names(self) -> set[str]:
        """Return the names of tables, views and indexes that begin with ``qconsume_``.

        The columns are among them, as ``table.column``.
        """

    def lock_declarations(self) -> Sequence[Step]:
        """Return steps that let other processes' declarations wait for this one."""
        return ()

    def caveats(self) -> list[str]:
        """Return a sentence for each setting that may lose messages."""
        return []

    def check(self) -> None:
        """Refuse a database that cannot hold queues, before the first use.

        :raises BrokerError: with the reason, and what to do.
        """
        return

    def check_room(self) -> None:
        """Refuse new messages on a nearly full disk: acknowledging also needs room.

        :raises PublishRefused: with the reason.
        """
        return

    @property
    def identity(self) -> object:
        """Value that changes if another database takes the place of this one.

        The tables and the topology are then declared again.
        """
        return None

    @abc.abstractmethod
    def open_channel(self, wake_readers: WakeReaders) -> Channel:
        """Create the channel for announcements; :meth:`Channel.start` listens."""

    @property
    def process(self) -> str:
        """Text by which other processes find out whether this process has ended."""
        return ""

    def is_dead(self, process: str) -> bool:
        """Return whether another process has ended, without any doubt.

        :param process: Its :attr:`process`.
        """
        return False

    def forget(self, process: str) -> None:
        """Delete what a dead process has left behind; never raise."""
        return

    @abc.abstractmethod
    def close(self) -> None:
        """Close all connections; the next call opens new ones."""

    def abandon_after_fork(self) -> None:
        """In a forked child: leave the parent's connections alone."""
        return
