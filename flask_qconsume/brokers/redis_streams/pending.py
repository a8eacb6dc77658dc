"""Unsettled stream entries of one link, *pending* for its consumer in the group.

Redis measures how long an entry has been pending; its lease ends after a time. A tag
has two parts: the number of the entry's stream, in the order in which the streams are
read, and the entry's id.
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

#: Limits a read, which ends at the first entry beyond.
_MAX_BYTES_PER_READ = 1024 * 1024
#: A consumer without entries is deleted after this time, but not before two leases.
_MIN_CONSUMER_AGE_SECONDS = 60.0
#: Limits the search for leases that a clock set back keeps alive.
_MAX_ENTRIES_PER_CONSUMER = 500


class PendingEntries(LeasedMessages):
    """The unsettled entries of one link, which is one consumer of the group."""

    def __init__(
        self, server: Server, stream_layout: StreamLayout, queue: str, lease: float
    ) -> None:
        self.consumer = create_consumer_name()
        self.streams = stream_layout.stream_keys(queue)
        self._server = server
        self._stream_layout = stream_layout
        self._queue = queue
        self._lease = lease
        self._group = stream_layout.group
        #: The tags, and whether each entry is marked as redelivered.
        self._tags: dict[str, bool] = {}
        #: The entry id at which the search for expired leases continues, by stream.
        self._cursors = dict.fromkeys(self.streams, "-")
        #: Trackers by stream; a lease is a pair of consumer and entry id.
        self._stale_leases: dict[str, StaleLeases[tuple[bytes, bytes]]] = {
            stream: StaleLeases(lease) for stream in self.streams
        }

    def __contains__(self, tag: str) -> bool:
        return tag in self._tags

    def create_pop_call(self, room: int) -> Call:
        stream_layout = self._stream_layout
        return scripts.POP(
            [stream_layout.delayed_key(self._queue), *self.streams],
            self._group,
            self.consumer,
            room,
            _MAX_BYTES_PER_READ,
            stream_layout.body,
            META,
            *stream_layout.queue_steps(self._queue),
        )

    def add(self, tag: str, redelivered: bool) -> None:
        """Remember an entry that was read."""
        self._tags[tag] = redelivered

    def ack(self, tags: Sequence[str]) -> int:
        # An entry that this link has given back may be pending for another consumer.
        own_tags = dict.fromkeys(tag for tag in tags if tag in self._tags)
        calls = [
            scripts.ACK([stream], self._group, " ".join(some))
            for stream, ids in self._group_by_stream(own_tags)
            for some in split_into_chunks(ids)
        ]
        acked_count = self._server.count(calls)
        self.mark_settled(own_tags)
        return len(own_tags) - acked_count

    def create_forward_call(self, tag: str, target_key: str, *how: t.Any) -> Call:
        stream, id = self._split_tag(tag)
        return scripts.FORWARD(
            [stream, target_key], self._group, self.consumer, id, *how
        )

    def mark_settled(self, tags: Iterable[str]) -> None:
        for tag in tags:
            self._tags.pop(tag, None)

    def extend_leases(self) -> None:
        if self._tags:
            call = scripts.EXTEND_LEASES(self.streams, self._group, self.consumer)
            check_answer(self._server.run_grouped([call])[0])

    def give_back(self, tags: Sequence[str], timeout: float | None = None) -> int:
        marked = [tag for tag in tags if self._tags.get(tag)]
        fresh = [tag for tag in tags if not self._tags.get(tag)]
        calls = [
            *self._create_release_calls(marked, "lost"),
            *self._create_release_calls(fresh, "released"),
        ]
        return self._server.count(calls, timeout)

    def forget_all(self) -> list[str]:
        # Entries that were redelivered once remain marked.
        marked = [tag for tag, redelivered in self._tags.items() if redelivered]
        self._tags = {}
        return [*(f"{tag} {self.consumer}" for tag in marked), f" {self.consumer}"]

    def return_forgotten(self, forgotten: Sequence[str], timeout: float) -> int:
        calls = []
        for forgotten_tag in forgotten:
            tag, _, consumer = forgotten_tag.partition(" ")
            if tag:
                stream, id = self._split_tag(tag)
                arguments = (self._group, consumer, "lost", id)
                calls.append(scripts.RELEASE([stream], *arguments))
            else:
                calls.append(scripts.RELEASE_ALL(self.streams, self._group, consumer))
        return self._server.count(calls, timeout)

    def restore_expired(self) -> int:
        # One round trip takes a third of the time of one for each script.
        looks = [
            search_call
            for stream in self.streams
            for search_call in self._create_search_calls(stream)
        ]
        answers = map(check_answer, self._server.run_grouped(looks))
        return sum(
            self._note_reclaimed(stream, next(answers))
            + self._reclaim_stale(stream, next(answers))
            for stream in self.streams
        )

    def _create_search_calls(self, stream: str) -> tuple[Call, Call]:
        """Return scripts that find expired leases, and leases from the future.

        A lease begins in the future if Redis' clock was set back afterwards.
        """
        lease_ms = round(self._lease * 1000)
        consumer_age_ms = round(max(_MIN_CONSUMER_AGE_SECONDS, 2 * self._lease) * 1000)
        group_and_consumer = (self._group, self.consumer)
        reclaim_expired = scripts.RECLAIM(
            [stream],
            *group_and_consumer,
            lease_ms,
            consumer_age_ms,
            self._cursors[stream],
        )
        return reclaim_expired, scripts.FIND_FUTURE_LEASES(
            [stream], *group_and_consumer, _MAX_ENTRIES_PER_CONSUMER
        )

    def _note_reclaimed(self, stream: str, answer: t.Any) -> int:
        count, cursor = answer
        self._cursors[stream] = cursor.decode()
        return int(count)

    def _reclaim_stale(self, stream: str, future_leases: Sequence[bytes]) -> int:
        """Reclaim leases that last too long because Redis' clock was set back."""
        over = self._stale_leases[stream].find_stale(
            zip(future_leases[::2], future_leases[1::2], strict=True)
        )
        calls = [
            scripts.RELEASE([stream], self._group, owner, "lost", id)
            for owner, id in over
        ]
        return self._server.count(calls)

    def _create_release_calls(self, tags: Sequence[str], owner: str) -> Iterator[Call]:
        for stream, ids in self._group_by_stream(tags):
            for some in split_into_chunks(ids):
                arguments = (self._group, self.consumer, owner, *some)
                yield scripts.RELEASE([stream], *arguments)

    def _split_tag(self, tag: str) -> tuple[str, str]:
        number, _, id = tag.partition(":")
        return self.streams[int(number)], id

    def _group_by_stream(self, tags: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
        """Group tags by stream; yield each stream's key and the ids of its entries."""
        ids_by_stream: dict[str, list[str]] = {}
        for tag in tags:
            number, _, id = tag.partition(":")
            ids_by_stream.setdefault(number, []).append(id)
        for number, ids in ids_by_stream.items():
            yield self.streams[int(number)], ids


def create_consumer_name() -> str:
    """Create a unique name for a link as a consumer of the consumer group."""
    return f"{describe_process()}:{uuid.uuid4()}"
