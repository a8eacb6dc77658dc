"""One link of the consumer group: reads a queue's streams. Does not publish.

The reader asks by a script first, which moves what is due, and reads what was given
back, what was lost and what is new, the high priorities first. If there is nothing it
waits in a blocking ``XREADGROUP`` on all streams, which Redis ends at the first entry;
and which a close ends by ``CLIENT UNBLOCK``, so that Redis cannot hand an entry to a
connection that is gone. The next script is sent with the wait.
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
from ..redis.link import LONG
from ..redis.link import ONE
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
    """One queue, read from its streams."""

    _held: PendingEntries

    def __init__(
        self, plan: QueuePlan, lane: Lane, shared: Shared[StreamLayout]
    ) -> None:
        self._layout = shared.layout
        self._due: float | None = None
        #: What a wait brought beyond the room that there was.
        self._spare: list[Delivery] = []
        super().__init__(plan, lane, shared)

    def _near(self) -> str:
        return self._layout.stream_key(self.queue)

    def _holder(self, lease: float) -> PendingEntries:
        return PendingEntries(self._shared.server, self._layout, self.queue, lease)

    def _look_beside(self) -> Call:
        keys = [self._layout.delayed_key(self.queue), *self._held.streams]
        return scripts.BESIDE(keys, self._layout.group)

    def _pop(self, room: int) -> list[Delivery]:
        if self._spare:
            found, self._spare = self._spare[:room], self._spare[room:]
            return found
        return super()._pop(room)

    def _popped(self, answer: t.Any) -> list[Delivery]:
        due, *texts = answer
        self._due = float(due) if due else None
        return [self._delivery(*each) for each in entries.split_entries(*texts)]

    def _pause(self) -> float:
        return self._longest if self._due is None else min(self._longest, self._due)

    def _block(self, seconds: float, room: int) -> list[Delivery]:
        held = self._held
        wait = create_wait_command(
            self._layout.group, held.consumer, held.streams, seconds
        )
        if self.lane is Lane.MAIN:
            answer, taken = self._wire.run_after(wait, held.create_pop_call(ONE))
            found = self._come(answer) + self._looked(self._popped(check_answer(taken)))
        else:
            # One by one: what the wait brings is all that there is room for.
            found = self._come(self._wire.pipeline([wait])[0])
            self._dry = False
        self._spare = found[room:]
        self._dry = self._dry and not self._spare
        return found[:room]

    def _come(self, answer: t.Any) -> list[Delivery]:
        return [
            self._delivery(f"{number}:{id}", fields, False)
            for number, id, fields in read_wait_answer(answer, self._held.streams)
        ]

    def _delivery(
        self, tag: str, fields: Sequence[bytes], redelivered: bool
    ) -> Delivery:
        self._held.add(tag, redelivered)
        body = self._layout.body
        message = entries.read_entry(fields, self.queue, body, redelivered)
        return Delivery(self, tag, message)

    def _forwarding(self, forward: Forward, queue: str) -> Call:
        message, tag = forward.delivery.message, forward.delivery.tag
        properties = basic_properties.encode_copy(message, forward.headers)
        entry = entries.encode_entry(
            properties, message.raw, exchange="", routing_key=queue
        )
        step = self._layout.priority_step(queue, message.priority)
        if forward.lane is Lane.DEAD:
            keep = forward.expires or LONG
            place = self._layout.dead_key(queue)
            return self._held.create_forward_call(
                tag, place, "keep", keep, entry.pack(step)
            )
        if forward.delay > 0:
            place, packed = self._layout.delayed_key(queue), entry.pack(step)
            return self._held.create_forward_call(
                tag, place, "delay", forward.delay, packed
            )
        place = self._layout.stream_key(queue, step)
        fields = (self._layout.body, entry.body, META, entry.meta)
        return self._held.create_forward_call(tag, place, "", 0, *fields)

    def _is_unseen(self, forward: Forward) -> bool:
        return 0 < forward.delay < POLL_INTERVAL
