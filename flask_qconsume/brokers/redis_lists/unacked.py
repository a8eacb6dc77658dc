"""The messages that one link holds: their tags, their leases, and the way back.

A message is held as a field of kombu's ``unacked`` hash, in kombu's own format, so that
a kombu worker that shares the Redis could put it back. The field's name is a tag of our
own (never the producer's, which two copies may share); it ends with the step of the
list that the message came from.
"""

from __future__ import annotations

import contextlib
import json
import typing as t
import uuid
from collections.abc import Iterable
from collections.abc import Sequence
from itertools import chain

from ...errors import BrokerError
from ..redis.leases import LeasedMessages
from ..redis.leases import StaleLeases
from ..redis.leases import describe_process
from ..redis.leases import split_into_chunks
from ..redis.scripts import Call
from ..redis.server import Server
from ..redis.server import check_answer
from . import envelope
from . import scripts
from .keys import ListLayout

#: A look for expired leases ends after so many pages of so many.
_PAGES = 10
_PAGE = 100
#: A read, or a page, ends early when it has fetched so many bytes.
_BYTES = 1024 * 1024


class UnackedMessages(LeasedMessages):
    """What one link took out of its queue and has not settled."""

    def __init__(
        self, server: Server, layout: ListLayout, queue: str, lease: float
    ) -> None:
        self.queue = queue
        self._server = server
        self._layout = layout
        self._lease = lease
        #: Tags and ends of leases.
        self._stale_leases: StaleLeases[tuple[bytes, bytes]] = StaleLeases(lease)
        self._prefix = _prefix()
        self._number = 0
        #: The tags in the order in which the messages were read.
        self._tags: dict[str, None] = {}
        #: The numbers given to a pop whose answer we have not got.
        self._asked = range(0)
        self._keys = layout.held_keys(queue)
        # kombu restores to (exchange, routing key): with the default exchange that is
        # this queue alone, and not once more all that the message was routed to.
        self._suffix = f',"",{json.dumps(queue)}]'.encode()

    def __contains__(self, tag: str) -> bool:
        return tag in self._tags

    def create_pop_call(self, room: int) -> Call:
        layout, queue = self._layout, self.queue
        first, self._number = self._number, self._number + room
        self._asked = range(first, self._number)
        return scripts.POP(
            [*self._keys, layout.delayed_key(queue), *layout.list_keys(queue)],
            room,
            _BYTES,
            self._prefix,
            first,
            self._lease,
            self._suffix,
            layout.queue_key(queue),
            layout.sep,
            *layout.steps,
        )

    def read_pop_answer(self, answer: Sequence[bytes]) -> list[tuple[str, bytes]]:
        """The tags and elements that the script took."""
        tags = [tag.decode() for tag in answer[1::2]]
        self._tags.update(dict.fromkeys(tags))
        # What was not given out is given to the next pop, which may be the same then.
        self._number = self._asked.start + len(tags)
        self._asked = range(0)
        return list(zip(tags, answer[2::2], strict=True))

    def ack(self, tags: Sequence[str]) -> int:
        calls = [scripts.ACK(self._keys, *some) for some in split_into_chunks(tags)]
        known = self._server.count(calls)
        self.mark_settled(tags)
        return len(tags) - known

    def create_forward_call(self, tag: str, place: str, *how: t.Any) -> Call:
        return scripts.FORWARD([*self._keys, place], tag, *how)

    def mark_settled(self, tags: Iterable[str]) -> None:
        for tag in tags:
            self._tags.pop(tag, None)

    def extend_leases(self) -> None:
        held = split_into_chunks(list(self._tags))
        calls = [scripts.TOUCH(self._keys, self._lease, *some) for some in held]
        for answer in self._server.run_grouped(calls) if calls else ():
            check_answer(answer)

    def give_back(self, tags: Sequence[str], timeout: float | None = None) -> int:
        layout = self._layout
        fixed = (len(self._suffix), layout.queue_key(self.queue), layout.sep)
        # The first one last: lists are read from the right, where we push.
        calls = [
            scripts.GIVE_BACK(self._keys, *fixed, *some)
            for some in split_into_chunks(list(reversed(tags)))
        ]
        return self._server.count(calls, timeout)

    def forget_all(self) -> list[str]:
        # Those never heard of included.
        unheard = [
            f"{self._prefix}{number}:{step}"
            for number in self._asked
            for step in self._layout.steps
        ]
        tags, self._tags, self._asked = [*self._tags, *unheard], {}, range(0)
        return tags

    def return_forgotten(self, dropped: Sequence[str], timeout: float) -> int:
        return self.give_back(dropped, timeout)

    def restore_expired(self) -> int:
        ahead = scripts.AHEAD(self._keys[:1], self._lease, _PAGE)
        # Asked for at once: a consumer at rest does so again and again.
        answers = map(check_answer, self._server.run_grouped([ahead, self._expired()]))
        ended = self._end_unmoved(next(answers))
        found = self._server.call(self._expired()) if ended else next(answers)
        restored = 0
        for _ in range(_PAGES):
            pairs = list(zip(found[::2], found[1::2], strict=True))
            if not pairs:
                break
            restored += self._server.count([self._restore(*pair) for pair in pairs])
            found = self._server.call(self._expired())
        return restored

    def _expired(self) -> Call:
        return scripts.EXPIRED(self._keys[:2], _PAGE, _BYTES)

    def _end_unmoved(self, found: Sequence[bytes]) -> bool:
        """End what would last for too long, since Redis' clock was set back."""
        over = self._stale_leases.find_stale(zip(found[::2], found[1::2], strict=True))
        if over:
            self._server.call(scripts.END(self._keys[:1], *chain(*over)))
        return bool(over)

    def _restore(self, tag: bytes, value: bytes) -> Call:
        step = int(tag.rpartition(b":")[2])
        element = value[1 : -len(self._suffix)]
        with contextlib.suppress(BrokerError):  # Unmarked is better than lost.
            element = envelope.mark_redelivered(element, self.queue)
        place = self._layout.list_key(self.queue, step)
        return scripts.RESTORE([*self._keys, place], tag, element)


def _prefix() -> str:
    """What the tags of one link begin with.

    Longer than 64 bytes on purpose: a sorted set with shorter members, as long as it is
    small, is a packed list, into which Redis inserts ten times slower.
    """
    return f"{describe_process():-<28.150}:{uuid.uuid4()}:"
