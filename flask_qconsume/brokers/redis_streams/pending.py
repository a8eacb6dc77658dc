"""The entries that one link holds: pending for its consumer, leased by their idle time.

A tag is the number of the stream that the entry came from, in the order in which the
streams are read, and the entry's id.
"""

from __future__ import annotations

import typing as t
import uuid
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

from ..redis.leases import LeasedMessages
from ..redis.leases import StaleLeases
from ..redis.leases import describe_process
from ..redis.leases import split_into_chunks
from ..redis.scripts import Call
from ..redis.server import Server
from ..redis.server import check_answer
from . import scripts
from .entries import META
from .keys import StreamLayout

#: A read ends early when it has fetched so many bytes.
_BYTES = 1024 * 1024
#: Seconds after which a consumer that has nothing and does nothing is forgotten.
_GONE = 60.0
#: How many entries of one owner are watched at once, since a clock was set back.
_MOST = 500


class PendingEntries(LeasedMessages):
    """What is pending for one consumer of the group."""

    def __init__(
        self, server: Server, layout: StreamLayout, queue: str, lease: float
    ) -> None:
        self.consumer = consumer_name()
        self.streams = layout.stream_keys(queue)
        self._server = server
        self._layout = layout
        self._queue = queue
        self._lease = lease
        self._group = layout.group
        #: Whether each is marked as redelivered.
        self._tags: dict[str, bool] = {}
        #: Where the look for expired leases goes on, by stream.
        self._cursors = dict.fromkeys(self.streams, "-")
        #: By stream, the owners and ids of entries.
        self._stale_leases: dict[str, StaleLeases[tuple[bytes, bytes]]] = {
            stream: StaleLeases(lease) for stream in self.streams
        }

    def __contains__(self, tag: str) -> bool:
        return tag in self._tags

    def create_pop_call(self, room: int) -> Call:
        layout = self._layout
        return scripts.POP(
            [layout.delayed_key(self._queue), *self.streams],
            self._group,
            self.consumer,
            room,
            _BYTES,
            layout.body,
            META,
            *layout.queue_steps(self._queue),
        )

    def add(self, tag: str, redelivered: bool) -> None:
        """Note that an entry was read."""
        self._tags[tag] = redelivered

    def ack(self, tags: Sequence[str]) -> int:
        # What this link gave back may be pending for somebody else by now.
        ours = dict.fromkeys(tag for tag in tags if tag in self._tags)
        calls = [
            scripts.ACK([stream], self._group, " ".join(some))
            for stream, ids in self._sorted(ours)
            for some in split_into_chunks(ids)
        ]
        known = self._server.count(calls)
        self.mark_settled(ours)
        return len(ours) - known

    def create_forward_call(self, tag: str, place: str, *how: t.Any) -> Call:
        stream, id = self._parted(tag)
        return scripts.FORWARD([stream, place], self._group, self.consumer, id, *how)

    def mark_settled(self, tags: Iterable[str]) -> None:
        for tag in tags:
            self._tags.pop(tag, None)

    def extend_leases(self) -> None:
        if self._tags:
            call = scripts.TOUCH(self.streams, self._group, self.consumer)
            check_answer(self._server.run_grouped([call])[0])

    def give_back(self, tags: Sequence[str], timeout: float | None = None) -> int:
        marked = [tag for tag in tags if self._tags.get(tag)]
        fresh = [tag for tag in tags if not self._tags.get(tag)]
        calls = [*self._releases(marked, "lost"), *self._releases(fresh, "released")]
        return self._server.count(calls, timeout)

    def forget_all(self) -> list[str]:
        # What was delivered again already stays marked.
        marked = [tag for tag, redelivered in self._tags.items() if redelivered]
        self._tags = {}
        return [*(f"{tag} {self.consumer}" for tag in marked), f" {self.consumer}"]

    def return_forgotten(self, dropped: Sequence[str], timeout: float) -> int:
        calls = []
        for each in dropped:
            tag, _, consumer = each.partition(" ")
            if tag:
                stream, id = self._parted(tag)
                arguments = (self._group, consumer, "lost", id)
                calls.append(scripts.RELEASE([stream], *arguments))
            else:
                calls.append(scripts.RELEASE_ALL(self.streams, self._group, consumer))
        return self._server.count(calls, timeout)

    def restore_expired(self) -> int:
        # Asked for at once: that costs a consumer at rest a third of asking in turn.
        looks = [each for stream in self.streams for each in self._looks(stream)]
        answers = map(check_answer, self._server.run_grouped(looks))
        return sum(
            self._reclaimed(stream, next(answers))
            + self._reclaim_unmoved(stream, next(answers))
            for stream in self.streams
        )

    def _looks(self, stream: str) -> tuple[Call, Call]:
        """One that reclaims what is over, and one that tells what may be, too."""
        lease = round(self._lease * 1000)
        gone = round(max(_GONE, 2 * self._lease) * 1000)
        us = (self._group, self.consumer)
        over = scripts.RECLAIM([stream], *us, lease, gone, self._cursors[stream])
        return over, scripts.AHEAD([stream], *us, _MOST)

    def _reclaimed(self, stream: str, answer: t.Any) -> int:
        count, cursor = answer
        self._cursors[stream] = cursor.decode()
        return int(count)

    def _reclaim_unmoved(self, stream: str, found: Sequence[bytes]) -> int:
        """Reclaim what would be held for too long, since Redis' clock was set back."""
        over = self._stale_leases[stream].find_stale(
            zip(found[::2], found[1::2], strict=True)
        )
        calls = [
            scripts.RELEASE([stream], self._group, owner, "lost", id)
            for owner, id in over
        ]
        return self._server.count(calls)

    def _releases(self, tags: Sequence[str], owner: str) -> Iterator[Call]:
        for stream, ids in self._sorted(tags):
            for some in split_into_chunks(ids):
                arguments = (self._group, self.consumer, owner, *some)
                yield scripts.RELEASE([stream], *arguments)

    def _parted(self, tag: str) -> tuple[str, str]:
        number, _, id = tag.partition(":")
        return self.streams[int(number)], id

    def _sorted(self, tags: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
        """The ids by their streams."""
        found: dict[str, list[str]] = {}
        for tag in tags:
            number, _, id = tag.partition(":")
            found.setdefault(number, []).append(id)
        for number, ids in found.items():
            yield self.streams[int(number)], ids


def consumer_name() -> str:
    """A name that no other consumer has."""
    return f"{describe_process()}:{uuid.uuid4()}"
