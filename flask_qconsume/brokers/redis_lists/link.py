"""One connection that consumes one queue of kombu's lists."""

from __future__ import annotations

import typing as t
from collections.abc import Sequence

from ...broker import properties as basic_properties
from ...broker.link import Delivery
from ...broker.link import Forward
from ...broker.link import Lane
from ...broker.topology import QueuePlan
from ..redis.blocked_readers import POLL_INTERVAL
from ..redis.errors import error_code
from ..redis.errors import error_text
from ..redis.errors import translate_error
from ..redis.link import LACKING
from ..redis.link import LONG
from ..redis.link import ONE
from ..redis.link import RedisLink
from ..redis.scripts import Call
from ..redis.server import check_answer
from ..redis.shared import Shared
from . import envelope
from . import scripts
from .keys import ListLayout
from .unacked import UnackedMessages

#: The same while messages of other steps keep coming, and for how many waits.
_SHORT_WAIT = 0.1


_SHORT_WAITS = 600


#: Where Redis cannot wait without taking (before 6.2), we ask this often at least.
_POLL = 0.1


class ListLink(RedisLink):
    """One queue, read from its lists."""

    _held: UnackedMessages

    def __init__(self, plan: QueuePlan, lane: Lane, shared: Shared[ListLayout]) -> None:
        self._layout = shared.layout
        self._can_wait = True
        super().__init__(plan, lane, shared)
        self._pauses = _Pauses(self._longest)

    def _holder(self, lease: float) -> UnackedMessages:
        return UnackedMessages(self._shared.server, self._layout, self.queue, lease)

    def _look_beside(self) -> Call:
        delayed, others = (
            self._layout.delayed_key(self.queue),
            self._layout.list_keys(self.queue),
        )
        return scripts.BESIDE([delayed, *others[1:]])

    def _popped(self, answer: t.Any) -> list[Delivery]:
        found = self._held.read_pop_answer(answer)
        self._pauses.note(answer[0], [tag for tag, _ in found])
        return [
            Delivery(self, tag, envelope.read_element(element, self.queue))
            for tag, element in found
        ]

    def _pause(self) -> float:
        return self._pauses.next()

    def _block(self, seconds: float, room: int) -> list[Delivery]:
        if not self._can_wait:
            self._ended.wait(self._pauses.poll(seconds))
            return self._pop(room)
        first = self._layout.list_keys(self.queue)[0]
        blmove = ("BLMOVE", first, first, "RIGHT", "RIGHT", f"{seconds + 0.0005:.3f}")
        answer, taken = self._wire.run_after(blmove, self._held.create_pop_call(ONE))
        found = self._looked(self._popped(check_answer(taken)))
        if isinstance(answer, Exception) and not found:
            self._not_waited(answer, seconds)
        return found

    def _not_waited(self, error: Exception, seconds: float) -> None:
        """Redis does not let us wait in it."""
        # It counts as a write, and those Redis refuses while it is out of memory.
        code = error_code(error)
        if code in LACKING:
            self._can_wait = False
            self._shared.warn(
                f"Redis does not let consumers wait by BLMOVE: {error_text(error)}. So"
                f" they look for messages every {_POLL:g} s, which costs Redis more."
                " Use Redis 6.2 or later, and permit it: 'ACL SETUSER … +blmove'."
            )
        elif code != "OOM":
            raise translate_error(error) from error
        self._ended.wait(self._pauses.poll(seconds))

    def _forwarding(self, forward: Forward, queue: str) -> Call:
        message, tag = forward.delivery.message, forward.delivery.tag
        properties = basic_properties.encode_copy(message, forward.headers)
        copy = envelope.encode_envelope(
            properties, message.raw, exchange="", routing_key=queue
        )
        if forward.lane is Lane.DEAD:
            keep = forward.expires or LONG
            place = self._layout.queue_key(queue)
            return self._held.create_forward_call(tag, place, copy, "keep", keep)
        step = self._step(forward)
        if forward.delay > 0:
            place = self._layout.delayed_key(queue)
            copy = envelope.encode_delayed(copy, step)
            return self._held.create_forward_call(
                tag, place, copy, "delay", forward.delay
            )
        return self._held.create_forward_call(
            tag, self._layout.list_key(queue, step), copy, ""
        )

    def _step(self, forward: Forward) -> int:
        priority = forward.delivery.message.priority
        return self._layout.priority_step(envelope.to_kombu_priority(priority))

    def _is_unseen(self, forward: Forward) -> bool:
        soon = 0 < forward.delay < POLL_INTERVAL
        return forward.lane is not Lane.DEAD and (soon or self._step(forward) != 0)


class _Pauses:
    """How long the reader waits each time."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._due: float | None = None
        self._short = 0
        self._poll = 0.0

    def note(self, due: bytes, tags: Sequence[str]) -> None:
        """Remember what the last look found."""
        self._due = float(due) if due else None
        if tags:
            self._poll = 0.0
        if any(not tag.endswith(":0") for tag in tags):
            self._short = _SHORT_WAITS

    def next(self) -> float:
        """Seconds to wait for a message, or for one that becomes due."""
        self._short = max(0, self._short - 1)
        longest = min(_SHORT_WAIT, self._longest) if self._short else self._longest
        return longest if self._due is None else min(longest, self._due)

    def poll(self, seconds: float) -> float:
        """Seconds until the next look where nothing wakes us: more and more."""
        self._poll = min(_POLL, 0.001 + 2 * self._poll)
        return min(self._poll, seconds)
