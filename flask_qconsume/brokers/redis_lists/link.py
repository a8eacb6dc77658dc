"""The link that consumes one queue in kombu's list layout.

To wait for a message, the reader has ``BLMOVE`` move the right end of the first list to
the right end of the same list. Redis blocks while the list is empty, and the list does
not change.
"""

from __future__ import annotations

import time
import typing as t
from collections.abc import Sequence

from ...broker import properties as basic_properties
from ...broker.link import Delivery
from ...broker.link import Forward
from ...broker.link import Lane
from ...broker.topology import QueuePlan
from ..redis.blocked_readers import POLL_INTERVAL
from ..redis.errors import MISSING
from ..redis.errors import read_error_code
from ..redis.errors import read_error_text
from ..redis.errors import translate_error
from ..redis.link import DEFAULT_RETENTION_SECONDS
from ..redis.link import ROOM_AFTER_WAIT
from ..redis.link import RedisLink
from ..redis.scripts import Call
from ..redis.server import check_answer
from ..redis.shared import Shared
from . import envelope
from . import scripts
from .keys import ListLayout
from .unacked import UnackedMessages

#: Seconds of a wait while messages of other priorities arrive, which do not end it; and
#: the number of such short waits after the last of them.
_SHORT_WAIT_SECONDS = 0.1
_SHORT_WAITS = 600
#: Most seconds between two polls of a Redis without ``BLMOVE`` (before 6.2).
_MAX_POLL_SECONDS = 0.1
#: Rounds a time-out up to whole ms; a time-out of 0 would never end.
_ROUNDING_SECONDS = 0.0005


class ListLink(RedisLink):
    """Consumes one queue, which has a Redis list for each priority step."""

    _leased: UnackedMessages

    def __init__(self, plan: QueuePlan, lane: Lane, shared: Shared[ListLayout]) -> None:
        self._list_layout = shared.layout
        self._can_block = True
        super().__init__(plan, lane, shared)
        self._wait_times = _WaitTimes(self._blocking_wait.longest)

    def _create_leased_messages(self, lease: float) -> UnackedMessages:
        return UnackedMessages(
            self._shared.server, self._list_layout, self.queue, lease
        )

    def _create_search_call(self) -> Call:
        _, *other_lists = self._list_layout.list_keys(self.queue)
        return scripts.FIND_UNNOTICED(
            [self._list_layout.delayed_key(self.queue), *other_lists]
        )

    def _read_popped(self, answer: t.Any) -> list[Delivery]:
        popped_elements = self._leased.read_pop_answer(answer)
        self._wait_times.note(answer[0], [tag for tag, _ in popped_elements])
        return [
            Delivery(self, tag, envelope.read_element(element, self.queue))
            for tag, element in popped_elements
        ]

    def _next_wait(self) -> float:
        return self._wait_times.next_wait()

    def _block(self, seconds: float, room: int) -> list[Delivery]:
        if not self._can_block:
            self._ended.wait(self._wait_times.next_poll(seconds))
            return self._pop(room)
        first = self._list_layout.list_keys(self.queue)[0]
        timeout = f"{seconds + _ROUNDING_SECONDS:.3f}"
        blmove = ("BLMOVE", first, first, "RIGHT", "RIGHT", timeout)
        pop = self._leased.create_pop_call(ROOM_AFTER_WAIT)
        answer, popped = self._redis_connection.run_after(blmove, pop)
        deliveries = self._note_found(self._read_popped(check_answer(popped)))
        if isinstance(answer, Exception) and not deliveries:
            self._handle_blmove_error(answer, seconds)
        return deliveries

    def _handle_blmove_error(self, error: Exception, seconds: float) -> None:
        """If Redis refuses ``BLMOVE``, let the reader poll from now on.

        :raises BrokerError: for any other error.
        """
        code = read_error_code(error)
        if code in MISSING:
            self._can_block = False
            self._shared.warn(
                "Redis does not let consumers wait by BLMOVE:"
                f" {read_error_text(error)}. So they look for messages every"
                f" {_MAX_POLL_SECONDS:g} s, which costs Redis more. Use Redis 6.2"
                " or later, and permit it: 'ACL SETUSER … +blmove'."
            )
        elif code != "OOM":  # BLMOVE counts as a write, which a full Redis refuses.
            raise translate_error(error) from error
        self._ended.wait(self._wait_times.next_poll(seconds))

    def _create_forward_call(self, forward: Forward, queue: str) -> Call:
        message, tag = forward.delivery.message, forward.delivery.tag
        copy = envelope.encode_envelope(
            basic_properties.encode_copy(message, forward.headers),
            message.raw,
            exchange="",
            routing_key=queue,
            ready_at=time.time() + forward.delay,
        )
        create_call = self._leased.create_forward_call
        if forward.lane is Lane.DEAD:
            keep = forward.expires or DEFAULT_RETENTION_SECONDS
            return create_call(
                tag, self._list_layout.queue_key(queue), copy, "keep", keep
            )
        step = self._priority_step(forward)
        if forward.delay > 0:
            key = self._list_layout.delayed_key(queue)
            copy = envelope.encode_delayed(copy, step)
            return create_call(tag, key, copy, "delay", forward.delay)
        return create_call(tag, self._list_layout.list_key(queue, step), copy, "")

    def _priority_step(self, forward: Forward) -> int:
        priority = forward.delivery.message.priority
        return self._list_layout.priority_step(envelope.to_kombu_priority(priority))

    def _needs_wake(self, forward: Forward) -> bool:
        is_soon_due = 0 < forward.delay < POLL_INTERVAL
        is_in_other_list = self._priority_step(forward) != 0
        return forward.lane is not Lane.DEAD and (is_soon_due or is_in_other_list)


class _WaitTimes:
    """Computes for how long the reader waits in Redis."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._due_in: float | None = None
        self._short_waits = 0
        self._poll = 0.0

    def note(self, due_in: bytes, tags: Sequence[str]) -> None:
        """Remember when the next delayed message is due, and if messages were found.

        :param due_in: Seconds until a delayed message is due; empty without any.
        :param tags: The tags of the leased messages.
        """
        self._due_in = float(due_in) if due_in else None
        if tags:
            self._poll = 0.0
        if any(not tag.endswith(":0") for tag in tags):
            self._short_waits = _SHORT_WAITS

    def next_wait(self) -> float:
        """Return the seconds to wait: until a delayed message is due, at most."""
        longest = self._longest
        self._short_waits = max(0, self._short_waits - 1)
        if self._short_waits:
            longest = min(_SHORT_WAIT_SECONDS, longest)
        return longest if self._due_in is None else min(longest, self._due_in)

    def next_poll(self, seconds: float) -> float:
        """Return the seconds until the next poll, on a Redis without ``BLMOVE``.

        The seconds grow from 1 ms, as long as polls find nothing.
        """
        self._poll = min(_MAX_POLL_SECONDS, 0.001 + 2 * self._poll)
        return min(self._poll, seconds)
