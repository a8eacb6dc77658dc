"""Leases of the messages that a link has read and not settled, in any layout.

A message that a link has read is leased to it. The link extends its leases as long as
it lives; the messages of a dead link go back to their queue when their leases end.
"""

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
from ...errors import BrokerError
from .scripts import Call

#: Seconds within which each worker extends its leases, however long these last.
_MAX_SECONDS_BETWEEN_EXTENSIONS = Link.keep_alive_interval
#: Lua can unpack some 8,000 arguments of one call.
_MAX_TAGS_PER_CALL = 500
#: Seconds that a closing link, or the next one, waits for Redis to take messages back.
_GIVE_BACK_TIMEOUT_SECONDS = 3.0

K = t.TypeVar("K", bound=t.Hashable)


class LeasedMessages(abc.ABC):
    """The unsettled messages of one link, each with a lease."""

    @abc.abstractmethod
    def __contains__(self, tag: str) -> bool: ...

    @abc.abstractmethod
    def create_pop_call(self, room: int) -> Call:
        """Return the script that takes up to ``room`` messages, and leases them."""

    @abc.abstractmethod
    def ack(self, tags: Sequence[str]) -> int:
        """Delete handled messages from Redis.

        :returns: The number of messages that were no longer leased to this link.
        :raises BrokerError: if it is unknown whether Redis has deleted them.
        """

    @abc.abstractmethod
    def create_forward_call(self, tag: str, target_key: str, *how: t.Any) -> Call:
        """Return the script that replaces a message by a copy at ``target_key``."""

    @abc.abstractmethod
    def mark_settled(self, tags: Iterable[str]) -> None:
        """Forget messages that are settled: Redis has deleted or moved them."""

    @abc.abstractmethod
    def extend_leases(self) -> None:
        """Extend the leases of all messages of this link."""

    @abc.abstractmethod
    def give_back(self, tags: Sequence[str], timeout: float | None = None) -> int:
        """Put messages back at the front of their queue, as not redelivered.

        :returns: The number of messages that were still leased to this link.
        """

    @abc.abstractmethod
    def forget_all(self) -> list[str]:
        """Forget all messages; return what is needed to give them back later."""

    @abc.abstractmethod
    def return_forgotten(self, forgotten: Sequence[str], timeout: float) -> int:
        """Return the messages of a :meth:`forget_all`, of any link, to their queues."""

    @abc.abstractmethod
    def restore_expired(self) -> int:
        """Put messages with expired leases back, marked as redelivered.

        :returns: The number of messages put back.
        """


class Orphans:
    """Messages that closing links could not give back, because Redis did not answer.

    The next link to the same queue gives these messages back.
    """

    def __init__(self) -> None:
        self._by_queue: dict[str, list[str]] = {}

    def release(self, leased_messages: LeasedMessages, queue: str) -> None:
        """Give back a closing link's messages; if that fails, keep them as orphans."""
        forgotten = leased_messages.forget_all()
        try:
            self._return(leased_messages, forgotten)
        except BrokerError:
            self._keep(queue, forgotten)

    def adopt(self, leased_messages: LeasedMessages, queue: str) -> None:
        """Give back the messages that closed links of a queue left behind.

        :raises BrokerError: if Redis is away; the messages remain orphans.
        """
        forgotten = self._by_queue.pop(queue, [])
        try:
            self._return(leased_messages, forgotten)
        except BrokerError:
            self._keep(queue, forgotten)
            raise

    def _return(
        self, leased_messages: LeasedMessages, forgotten: Sequence[str]
    ) -> None:
        if forgotten:
            leased_messages.return_forgotten(forgotten, _GIVE_BACK_TIMEOUT_SECONDS)

    def _keep(self, queue: str, forgotten: Sequence[str]) -> None:
        self._by_queue.setdefault(queue, []).extend(forgotten)


class StaleLeases(t.Generic[K]):
    """Finds leases that no worker extends, by this process' own clock.

    Redis ends leases by its wall clock. If that clock is set back by an hour, the
    leases of dead workers would last an hour longer. A lease that stays unchanged for
    longer than the longest interval between extensions belongs to a dead worker.

    :param lease: Seconds that a lease lasts.
    """

    def __init__(
        self, lease: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stale_after = max(lease, 3 * _MAX_SECONDS_BETWEEN_EXTENSIONS)
        self._clock = clock
        self._unchanged_since: dict[K, float] = {}

    def find_stale(self, leases: Iterable[K]) -> list[K]:
        """Return the leases that no worker has extended for too long.

        :param leases: All leases, each with a value that changes at each extension.
        """
        now = self._clock()
        self._unchanged_since = {
            lease: self._unchanged_since.get(lease, now) for lease in leases
        }
        limit = now - self._stale_after
        return [
            lease for lease, since in self._unchanged_since.items() if since <= limit
        ]


def describe_process() -> str:
    """Return this process' host name and process id, for users to recognize."""
    return f"flask_qconsume:{socket.gethostname()}:{os.getpid()}"


def split_into_chunks(tags: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split tags into chunks small enough for one call of a script."""
    for start in range(0, len(tags), _MAX_TAGS_PER_CALL):
        yield tags[start : start + _MAX_TAGS_PER_CALL]
