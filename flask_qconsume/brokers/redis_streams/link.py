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
from ..redis.blocked_readers import EVERY
from ..redis.link import LONG
from ..redis.link import ONE
from ..redis.link import HoldingLink
from ..redis.scripts import Call
from ..redis.server import good
from ..redis.shared import Shared
from . import envelope
from . import scripts
from .blocking_read import come
from .blocking_read import wait_for
from .envelope import META
from .held import Held
from .keys import Layout


class StreamLink(HoldingLink):
    """One queue, read from its streams."""

    _held: Held

    def __init__(self, plan: QueuePlan, lane: Lane, shared: Shared[Layout]) -> None:
        self._layout = shared.layout
        self._due: float | None = None
        #: What a wait brought beyond the room that there was.
        self._spare: list[Delivery] = []
        super().__init__(plan, lane, shared)

    def _near(self) -> str:
        return self._layout.stream(self.queue)

    def _holder(self, lease: float) -> Held:
        return Held(self._shared.server, self._layout, self.queue, lease)

    def _look_beside(self) -> Call:
        keys = [self._layout.delayed(self.queue), *self._held.streams]
        return scripts.BESIDE(keys, self._layout.group)

    def _pop(self, room: int) -> list[Delivery]:
        if self._spare:
            found, self._spare = self._spare[:room], self._spare[room:]
            return found
        return super()._pop(room)

    def _popped(self, answer: t.Any) -> list[Delivery]:
        due, *texts = answer
        self._due = float(due) if due else None
        return [self._delivery(*each) for each in envelope.unrolled(*texts)]

    def _pause(self) -> float:
        return self._longest if self._due is None else min(self._longest, self._due)

    def _block(self, seconds: float, room: int) -> list[Delivery]:
        held = self._held
        wait = wait_for(self._layout.group, held.consumer, held.streams, seconds)
        if self.lane is Lane.MAIN:
            answer, taken = self._wire.run_after(wait, held.pop(ONE))
            found = self._come(answer) + self._looked(self._popped(good(taken)))
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
            for number, id, fields in come(answer, self._held.streams)
        ]

    def _delivery(
        self, tag: str, fields: Sequence[bytes], redelivered: bool
    ) -> Delivery:
        self._held.take(tag, redelivered)
        body = self._layout.body
        message = envelope.opened(fields, self.queue, body, redelivered)
        return Delivery(self, tag, message)

    def _forwarding(self, forward: Forward, queue: str) -> Call:
        message, tag = forward.delivery.message, forward.delivery.tag
        properties = basic_properties.encode_copy(message, forward.headers)
        entry = envelope.sealed(properties, message.raw, exchange="", routing_key=queue)
        step = self._layout.step(queue, message.priority)
        if forward.lane is Lane.DEAD:
            keep = forward.expires or LONG
            place = self._layout.dead(queue)
            return self._held.forward(tag, place, "keep", keep, entry.packed(step))
        if forward.delay > 0:
            place, packed = self._layout.delayed(queue), entry.packed(step)
            return self._held.forward(tag, place, "delay", forward.delay, packed)
        place = self._layout.stream(queue, step)
        fields = (self._layout.body, entry.body, META, entry.meta)
        return self._held.forward(tag, place, "", 0, *fields)

    def _is_unseen(self, forward: Forward) -> bool:
        return 0 < forward.delay < EVERY
