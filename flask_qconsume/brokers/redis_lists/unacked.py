"""Unsettled messages of one link in kombu's list layout: tags and leases.

A held message is a field of kombu's ``unacked`` hash, in kombu's own format, so that a
kombu worker on the same Redis can restore it. The field's name is a tag of our own,
since a producer may give two copies of a message the same delivery tag. The tag ends
with the priority step of the list that held the message.
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

#: Limits one search for expired leases, so that a heartbeat does not take long.
_MAX_PAGES_PER_SEARCH = 10
_MAX_TAGS_PER_PAGE = 100
#: Limits a read, or a page of a search, which ends at the first message beyond.
_MAX_BYTES_PER_READ = 1024 * 1024


class UnackedMessages(LeasedMessages):
    """The unsettled messages of one link, in kombu's hash ``unacked``."""

    def __init__(
        self, server: Server, list_layout: ListLayout, queue: str, lease: float
    ) -> None:
        self.queue = queue
        self._server = server
        self._list_layout = list_layout
        self._lease = lease
        #: Tags and the times at which their leases end.
        self._stale_leases: StaleLeases[tuple[bytes, bytes]] = StaleLeases(lease)
        self._tag_prefix = _create_tag_prefix()
        self._next_tag_number = 0
        #: The tags in the order in which the messages were read.
        self._tags: dict[str, None] = {}
        #: Numbers for the tags of a script that has not answered yet.
        self._tag_numbers_in_use = range(0)
        self._keys = list_layout.held_keys(queue)
        # kombu restores a message to (exchange, routing key). With the default exchange
        # that is this queue only, not all queues that the message was routed to.
        self._suffix = f',"",{json.dumps(queue)}]'.encode()

    def __contains__(self, tag: str) -> bool:
        return tag in self._tags

    def create_pop_call(self, room: int) -> Call:
        list_layout, queue = self._list_layout, self.queue
        first, self._next_tag_number = (
            self._next_tag_number,
            self._next_tag_number + room,
        )
        self._tag_numbers_in_use = range(first, self._next_tag_number)
        return scripts.POP(
            [
                *self._keys,
                list_layout.delayed_key(queue),
                *list_layout.list_keys(queue),
            ],
            room,
            _MAX_BYTES_PER_READ,
            self._tag_prefix,
            first,
            self._lease,
            self._suffix,
            list_layout.queue_key(queue),
            list_layout.sep,
            *list_layout.steps,
        )

    def read_pop_answer(self, answer: Sequence[bytes]) -> list[tuple[str, bytes]]:
        """Decode the answer of the script that takes messages: tags and elements."""
        tags = [tag.decode() for tag in answer[1::2]]
        self._tags.update(dict.fromkeys(tags))
        # The next call gets the numbers that were not used. So its arguments are often
        # the same as before, and need not be packed again.
        self._next_tag_number = self._tag_numbers_in_use.start + len(tags)
        self._tag_numbers_in_use = range(0)
        return list(zip(tags, answer[2::2], strict=True))

    def ack(self, tags: Sequence[str]) -> int:
        calls = [scripts.ACK(self._keys, *some) for some in split_into_chunks(tags)]
        acked_count = self._server.count(calls)
        self.mark_settled(tags)
        return len(tags) - acked_count

    def create_forward_call(self, tag: str, target_key: str, *how: t.Any) -> Call:
        return scripts.FORWARD([*self._keys, target_key], tag, *how)

    def mark_settled(self, tags: Iterable[str]) -> None:
        for tag in tags:
            self._tags.pop(tag, None)

    def extend_leases(self) -> None:
        tag_chunks = split_into_chunks(list(self._tags))
        calls = [
            scripts.EXTEND_LEASES(self._keys, self._lease, *tags) for tags in tag_chunks
        ]
        for answer in self._server.run_grouped(calls) if calls else ():
            check_answer(answer)

    def give_back(self, tags: Sequence[str], timeout: float | None = None) -> int:
        list_layout = self._list_layout
        fixed = (len(self._suffix), list_layout.queue_key(self.queue), list_layout.sep)
        # In reverse order: messages are pushed to the right end, which is read first.
        calls = [
            scripts.GIVE_BACK(self._keys, *fixed, *some)
            for some in split_into_chunks(list(reversed(tags)))
        ]
        return self._server.count(calls, timeout)

    def forget_all(self) -> list[str]:
        # Include messages that a script may have taken with an answer that was lost.
        unheard = [
            f"{self._tag_prefix}{number}:{step}"
            for number in self._tag_numbers_in_use
            for step in self._list_layout.steps
        ]
        tags, self._tags, self._tag_numbers_in_use = (
            [*self._tags, *unheard],
            {},
            range(0),
        )
        return tags

    def return_forgotten(self, forgotten: Sequence[str], timeout: float) -> int:
        return self.give_back(forgotten, timeout)

    def restore_expired(self) -> int:
        ahead = scripts.FIND_FUTURE_LEASES(
            self._keys[:1], self._lease, _MAX_TAGS_PER_PAGE
        )
        search = scripts.FIND_EXPIRED(
            self._keys[:2], _MAX_TAGS_PER_PAGE, _MAX_BYTES_PER_READ
        )
        # In one round trip, since idle consumers do this at each heartbeat.
        answers = map(check_answer, self._server.run_grouped([ahead, search]))
        has_ended_some = self._end_stale(next(answers))
        leases_found = self._server.call(search) if has_ended_some else next(answers)
        restored = 0
        for _ in range(_MAX_PAGES_PER_SEARCH):
            pairs = list(zip(leases_found[::2], leases_found[1::2], strict=True))
            if not pairs:
                break
            calls = [self._create_restore_call(*pair) for pair in pairs]
            restored += self._server.count(calls)
            leases_found = self._server.call(search)
        return restored

    def _end_stale(self, leases_found: Sequence[bytes]) -> bool:
        """End leases that last too long because Redis' clock was set back.

        :returns: Whether there were such leases.
        """
        stale = self._stale_leases.find_stale(
            zip(leases_found[::2], leases_found[1::2], strict=True)
        )
        if stale:
            self._server.call(scripts.END_LEASES(self._keys[:1], *chain(*stale)))
        return bool(stale)

    def _create_restore_call(self, tag: bytes, value: bytes) -> Call:
        step = int(tag.rpartition(b":")[2])
        element = value[1 : -len(self._suffix)]
        with contextlib.suppress(BrokerError):  # Better unmarked than lost.
            element = envelope.mark_redelivered(element, self.queue)
        list_key = self._list_layout.list_key(self.queue, step)
        return scripts.RESTORE([*self._keys, list_key], tag, element)


def _create_tag_prefix() -> str:
    """Create a unique text, the beginning of all tags of one link.

    The text is longer than 64 bytes on purpose. Redis keeps a small sorted set whose
    members are shorter as a packed list, and inserting into a packed list takes ten
    times as long.
    """
    return f"{describe_process():-<28.150}:{uuid.uuid4()}:"
