"""Leases of messages that links hold, whatever the layout."""

from __future__ import annotations

import abc
import os
import socket
import time
import typing as t
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

from ...broker.link import Link
from .scripts import Call

#: Every worker renews its leases at least this often, however long they are.
_RENEWED = Link.keep_alive_interval


K = t.TypeVar("K", bound=t.Hashable)


#: Redis unpacks the tags of one call on Lua's stack, which holds some 8,000.
_CHUNK = 500


class LeasedMessages(abc.ABC):
    """What one link has not settled yet, however it lies in Redis."""

    @abc.abstractmethod
    def __contains__(self, tag: str) -> bool: ...

    @abc.abstractmethod
    def create_pop_call(self, room: int) -> Call:
        """The script that takes up to ``room`` messages."""

    @abc.abstractmethod
    def ack(self, tags: Sequence[str]) -> int:
        """Forget messages that are done with.

        :returns: How many of them were not held any more: their leases had ended.
        :raises BrokerError: if it is not known whether Redis forgot them.
        """

    @abc.abstractmethod
    def create_forward_call(self, tag: str, place: str, *how: t.Any) -> Call:
        """The script that puts a copy to another place and lets go of the message."""

    @abc.abstractmethod
    def mark_settled(self, tags: Iterable[str]) -> None:
        """Count messages as settled."""

    @abc.abstractmethod
    def extend_leases(self) -> None:
        """Prolong all leases."""

    @abc.abstractmethod
    def give_back(self, tags: Sequence[str], timeout: float | None = None) -> int:
        """Put messages back, unmarked, to be read first and in their old order."""

    @abc.abstractmethod
    def forget_all(self) -> list[str]:
        """Hold nothing any more; return what :meth:`return_forgotten` has to know."""

    @abc.abstractmethod
    def return_forgotten(self, dropped: Sequence[str], timeout: float) -> int:
        """Put back what was dropped, by this link or by one before it."""

    @abc.abstractmethod
    def restore_expired(self) -> int:
        """Put back, marked as redelivered, what others held and no longer look after.

        :returns: How many.
        """


class StaleLeases(t.Generic[K]):
    """Tells which of some leases were seen unchanged for too long.

    :param lease: Seconds that a lease lasts.
    """

    def __init__(
        self, lease: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._patience = max(lease, 3 * _RENEWED)
        self._clock = clock
        self._since: dict[K, float] = {}

    def find_stale(self, seen: Iterable[K]) -> list[K]:
        """Those that were seen at every look for long enough.

        :param seen: All that are suspicious now, each with what a renewal changes.
        """
        now = self._clock()
        self._since = {each: self._since.get(each, now) for each in seen}
        return [k for k, since in self._since.items() if now - since >= self._patience]


def describe_process() -> str:
    """Tells a person who holds a message."""
    return f"flask_qconsume:{socket.gethostname()}:{os.getpid()}"


def split_into_chunks(tags: Sequence[str]) -> Iterator[Sequence[str]]:
    """So many of them as one call takes, again and again."""
    for start in range(0, len(tags), _CHUNK):
        yield tags[start : start + _CHUNK]
