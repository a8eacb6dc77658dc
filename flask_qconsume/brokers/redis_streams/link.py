"""The link that consumes one queue's streams, as a member of the consumer group.

The reader first runs a script, which moves delayed messages that are due into the
streams, then reads entries that were given back, entries of dead consumers, and new
entries, the high priorities first. If there are none, the reader waits in a blocking
``XREADGROUP`` on all streams, which ends with the first new entry. The method
:meth:`close` ends that wait by ``CLIENT UNBLOCK``, so that Redis cannot deliver an
entry to a closed connection.
"""

from __future__ import annotations

import typing as t
from collections.abc import Sequence

from ...broker import properties as basic_properties
from ...broker.link import Delivery
from ...broker.link import Forward
from ...broker.link import Lane
from ...broker.topology import QueuePlan
from ..redis.blocked_readers import POLL_INTERVAL
from ..redis.link import DEFAULT_RETENTION_SECONDS
from ..redis.link import ROOM_AFTER_WAIT
from ..redis.link import RedisLink
from ..redis.scripts import Call
from ..redis.server import check_answer
from ..redis.shared import Shared
from . import entries
from . import scripts
from .blocking_read import create_wait_command
from .blocking_read import read_wait_answer
from .entries import META
from .keys import StreamLayout
from .pending import PendingEntries


class StreamLink(RedisLink):
    """Consumes one queue, which has a stream for each priority step."""

    _leased: PendingEntries

    def __init__(
        self, plan: QueuePlan, lane: Lane, shared: Shared[StreamLayout]
    ) -> None:
        self._stream_layout = shared.layout
        #: Seconds until a delayed message is due.
        self._due_in: float | None = None
        #: Deliveries that the last wait read beyond the number wanted.
        self._excess_deliveries: list[Delivery] = []
        super().__init__(plan, lane, shared)

    def _near_key(self) -> str:
        return self._stream_layout.stream_key(self.queue)

    def _create_leased_messages(self, lease: float) -> PendingEntries:
        return PendingEntries(
            self._shared.server, self._stream_layout, self.queue, lease
        )

    def _create_search_call(self) -> Call:
        keys = [
            self._stream_layout.delayed_key(self.queue),
            *self._leased.streams,
        ]
        return scripts.FIND_UNNOTICED(keys, self._stream_layout.group)

    def _pop(self, room: int) -> list[Delivery]:
        if self._excess_deliveries:
            deliveries, self._excess_deliveries = (
                self._excess_deliveries[:room],
                self._excess_deliveries[room:],
            )
            return deliveries
        return super()._pop(room)

    def _read_popped(self, answer: t.Any) -> list[Delivery]:
        due_in, *texts = answer
        self._due_in = float(due_in) if due_in else None
        return [
            self._create_delivery(*entry) for entry in entries.split_entries(*texts)
        ]

    def _next_wait(self) -> float:
        longest = self._blocking_wait.longest
        return longest if self._due_in is None else min(longest, self._due_in)

    def _block(self, seconds: float, room: int) -> list[Delivery]:
        pending_entries = self._leased
        wait = create_wait_command(
            self._stream_layout.group,
            pending_entries.consumer,
            pending_entries.streams,
            seconds,
        )
        if self.lane is Lane.MAIN:
            pop = pending_entries.create_pop_call(ROOM_AFTER_WAIT)
            answer, popped = self._redis_connection.run_after(wait, pop)
            deliveries = self._read_waited(answer)
            deliveries += self._note_found(self._read_popped(check_answer(popped)))
        else:
            # Suspects are handled one by one, so the entry that the wait reads is
            # enough.
            deliveries = self._read_waited(self._redis_connection.pipeline([wait])[0])
            self._is_drained = False
        self._excess_deliveries = deliveries[room:]
        self._is_drained = self._is_drained and not self._excess_deliveries
        return deliveries[:room]

    def _read_waited(self, answer: t.Any) -> list[Delivery]:
        return [
            self._create_delivery(f"{number}:{id}", fields, False)
            for number, id, fields in read_wait_answer(answer, self._leased.streams)
        ]

    def _create_delivery(
        self, tag: str, fields: Sequence[bytes], redelivered: bool
    ) -> Delivery:
        self._leased.add(tag, redelivered)
        body = self._stream_layout.body
        message = entries.read_entry(fields, self.queue, body, redelivered)
        return Delivery(self, tag, message)

    def _create_forward_call(self, forward: Forward, queue: str) -> Call:
        message, tag = forward.delivery.message, forward.delivery.tag
        entry = entries.encode_entry(
            basic_properties.encode_copy(message, forward.headers),
            message.raw,
            exchange="",
            routing_key=queue,
        )
        step = self._stream_layout.priority_step(queue, message.priority)
        create_call = self._leased.create_forward_call
        if forward.lane is Lane.DEAD:
            keep = forward.expires or DEFAULT_RETENTION_SECONDS
            key = self._stream_layout.dead_key(queue)
            return create_call(tag, key, "keep", keep, entry.pack(step))
        if forward.delay > 0:
            key = self._stream_layout.delayed_key(queue)
            return create_call(tag, key, "delay", forward.delay, entry.pack(step))
        fields = (self._stream_layout.body, entry.body, META, entry.meta)
        return create_call(
            tag, self._stream_layout.stream_key(queue, step), "", 0, *fields
        )

    def _needs_wake(self, forward: Forward) -> bool:
        return 0 < forward.delay < POLL_INTERVAL
