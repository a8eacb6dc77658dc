"""One link of the consumer group: reads a queue's streams. Does not publish.

The reader asks by a script first, which moves what is due, and reads what was given
back, what was lost and what is new, the high priorities first. If there is nothing it
waits in a blocking ``XREADGROUP`` on all streams, which Redis ends at the first entry;
and which :meth:`~.StreamLink.close` ends by ``CLIENT UNBLOCK``, so that Redis cannot
hand an entry to a connection that is gone.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import properties as basic
from ..delivery import Delivery
from ..delivery import Forward
from ..delivery import Lane
from ..redis.link import LONG
from ..redis.link import WAIT
from ..redis.link import HoldingLink
from ..redis.scripts import Call
from ..redis.server import good
from ..redis.shared import Shared
from ..topology import QueuePlan
from . import envelope
from .envelope import META
from .held import Held
from .layout import Layout
from .waiting import read_group


class StreamLink(HoldingLink):
    """One queue, read from its streams."""

    _held: Held

    def __init__(self, plan: QueuePlan, lane: Lane, shared: Shared[Layout]) -> None:
        self._layout = shared.layout
        self._due: float | None = None
        #: The room that there was at the last look.
        self._room = 1
        #: What a wait brought beyond the room that there was.
        self._spare: list[Delivery] = []
        super().__init__(plan, lane, shared)

    def close(self) -> None:
        with self._gate:
            self.closed = True
        self.wake()
        super().close()

    def _rouse(self) -> None:
        # It was unblocked already. If Redis does not let us, it waits for a second at
        # the most: an interrupted wait could still be given a message.
        return

    def _near(self) -> str:
        return self._layout.stream(self.queue)

    def _holder(self, lease: float) -> Held:
        return Held(self._shared.server, self._layout, self.queue, lease)

    def _pop(self, room: int) -> list[Delivery]:
        if self._spare:
            found, self._spare = self._spare[:room], self._spare[room:]
            return found
        self._room = room
        due, *texts = good(self._wire.run([self._held.pop(room)])[0])
        self._due = float(due) if due else None
        return [self._delivery(*each) for each in envelope.unrolled(*texts)]

    def _pause(self) -> float:
        return self._longest if self._due is None else min(self._longest, self._due)

    def _block(self, seconds: float) -> list[Delivery]:
        held = self._held
        found = [
            self._delivery(f"{number}:{id}", fields, False)
            for number, id, fields in read_group(
                self._wire, self._layout.group, held.consumer, held.streams, seconds
            )
        ]
        self._spare = found[self._room :]
        return found[: self._room]

    def _delivery(
        self, tag: str, fields: Sequence[bytes], redelivered: bool
    ) -> Delivery:
        self._held.take(tag, redelivered)
        body = self._layout.body
        message = envelope.opened(fields, self.queue, body, redelivered)
        return Delivery(self, tag, message)

    def _forwarding(self, forward: Forward, queue: str) -> Call:
        message, tag = forward.delivery.message, forward.delivery.tag
        properties = basic.copy(message, forward.headers)
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
        return 0 < forward.delay < WAIT
