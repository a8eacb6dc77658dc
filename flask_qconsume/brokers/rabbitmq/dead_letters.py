"""The dead letters of one queue on RabbitMQ.

AMQP cannot look at a message without taking it. So a listing takes all dead letters,
acknowledges none, and requeues each to its old place. Meanwhile it holds a lock, for
which other commands wait.
"""

from __future__ import annotations

import contextlib
import hashlib
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence

from ...broker import headers as own_headers
from ...broker.dead_letters import DeadLetter
from ...broker.dead_letters import DeadLetters
from ...broker.topology import QueuePlan
from ...handling.payload import UNREADABLE
from ...settings import Settings
from .browse_lock import BrowseLock
from .browser import Browser
from .connection import open_channel
from .depth import count_ready
from .forwarding import address_to_queue
from .forwarding import copy_properties
from .pending_publish import PendingPublish
from .pending_publish import Publish

#: Number of dead letters that are replayed at once.
_REPLAYED_AT_ONCE = 100
#: Number of dead letters that are removed at once.
_PURGED_AT_ONCE = 1_000

#: Seconds that a count waits for another process that reads the dead letters.
_COUNT_WAIT_SECONDS = 15.0

#: Bytes that the headers of a replayed message are cut to. The publisher refuses
#: headers that do not fit the frame size of its connection.
_FRAME_MAX = 131_072


class _WantedLetter(t.NamedTuple):
    tag: int
    letter: DeadLetter


class RabbitDeadLetters(DeadLetters):
    """Lists, removes and replays the messages in ``<queue>.dead``."""

    def __init__(self, settings: Settings, plan: QueuePlan, publish: Publish) -> None:
        self._settings = settings
        self._plan = plan
        self._publish = publish

    def count(self) -> int:
        ready_counts: list[int] = []

        def try_count() -> bool:
            # Free before and after: the lock's holder keeps some messages, or all.
            if lock.is_free():
                ready_counts.append(count_ready(channel, self._plan.dead))
            return bool(ready_counts) and lock.is_free()

        with self._channel() as channel:
            lock = BrowseLock(channel.connection, self._plan.dead)
            lock.retry(try_count, _COUNT_WAIT_SECONDS)
        return ready_counts[-1]

    def __iter__(self) -> Iterator[DeadLetter]:
        with self._browser() as browser:
            for taken_message in browser:
                yield to_dead_letter(self._plan.name, taken_message.message)

    def take(
        self,
        wanted: t.Callable[[DeadLetter], bool],
        replay: bool,
        progress: t.Callable[[], t.Any] = lambda: None,
    ) -> int:
        number = 0
        batch: list[_WantedLetter] = []
        batch_size = _REPLAYED_AT_ONCE if replay else _PURGED_AT_ONCE
        with self._browser() as browser:
            for taken_message in browser:
                letter = to_dead_letter(self._plan.name, taken_message.message)
                if wanted(letter):
                    batch.append(_WantedLetter(taken_message.tag, letter))
                if len(batch) == batch_size:
                    number += self._remove(browser, batch, replay)
                    batch = []
                progress()
            return number + self._remove(browser, batch, replay)

    @contextlib.contextmanager
    def _channel(self) -> t.Iterator[t.Any]:
        doing = f"reading the dead letters of '{self._plan.name}'"
        with open_channel(self._settings, doing) as channel:
            yield channel

    @contextlib.contextmanager
    def _browser(self) -> t.Iterator[Browser]:
        plan = self._plan
        with (
            self._channel() as channel,
            BrowseLock(channel.connection, plan.dead).hold(),
        ):
            browser = Browser(channel, plan.dead, plan.type, plan.name)
            try:
                yield browser
            finally:
                browser.requeue_kept()

    def _remove(
        self, browser: Browser, batch: Sequence[_WantedLetter], replay: bool
    ) -> int:
        """Remove dead letters from their queue; if ``replay``, publish copies first."""
        if not batch:
            return 0
        errors: Sequence[Exception | None] = [None] * len(batch)
        if replay:
            errors = self._publish(
                [self._copy(wanted_letter.letter) for wanted_letter in batch]
            )
        settled = zip(batch, errors, strict=True)
        browser.remove(
            wanted_letter.tag for wanted_letter, error in settled if error is None
        )
        for error in errors:
            if error is not None:
                raise error
        return len(batch)

    def _copy(self, letter: DeadLetter) -> PendingPublish:
        """Create the message that sends a dead letter back to its original queue."""
        message = letter.message
        headers = own_headers.make_replay_headers(message.headers)
        headers.pop(UNREADABLE, None)
        basic = copy_properties(message, headers, _FRAME_MAX)
        return address_to_queue(basic, message.raw, self._plan.name)


def to_dead_letter(queue: str, message: t.Any) -> DeadLetter:
    """Convert a message in a dead-letter queue to a :class:`DeadLetter`."""
    return DeadLetter(
        ref=compute_reference(message),
        queue=queue,
        message=message,
        headers=own_headers.select_own(message.headers),
    )


def compute_reference(message: t.Any) -> str:
    """Return the twelve hexadecimal digits by which commands name a dead letter.

    They are a hash of the message's id, the time at which it became a dead letter, and
    its body. The id is not enough: one message may become a dead letter twice (it was
    replayed, or delivered twice), and messages of other programs may have no id.
    """
    died_at = message.headers.get(own_headers.DIED_AT)
    text = f"{message.id}|{died_at}|".encode("utf-8", "backslashreplace")
    return hashlib.sha256(text + message.raw).hexdigest()[:12]
