"""The dead letters of one queue on RabbitMQ.

AMQP cannot look without taking. A listing takes them all, acknowledges none, and gives
all back to where they were; for that time it has a lock, for which other commands wait.
"""

from __future__ import annotations

import contextlib
import hashlib
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence

from ...broker import headers as own_headers
from ...broker.base import DeadLetter
from ...broker.base import DeadLetters
from ...broker.topology import QueuePlan
from ...handling.payload import UNREADABLE
from ...settings import Settings
from .browse_lock import BrowseLock
from .browser import Browser
from .connection import requests
from .depth import depth
from .forwarding import copied
from .forwarding import to_queue
from .pending_publish import Parcel

#: How many are replayed at once.
_BATCH = 100
#: How many are removed between two barriers.
_PURGED = 1_000

#: Seconds that a count waits for a process that reads them all.
_COUNT_WAIT = 15.0

#: The smallest frame that AMQP allows is larger than ours ever need; the publisher
#: refuses what does not fit.
_FRAME_MAX = 131_072

Publish = t.Callable[[Sequence[Parcel]], list[Exception | None]]


class _Wanted(t.NamedTuple):
    tag: int
    letter: DeadLetter


class RabbitDeadLetters(DeadLetters):
    """Looks at, removes and replays what is in ``<queue>.dead``."""

    def __init__(self, settings: Settings, plan: QueuePlan, publish: Publish) -> None:
        self._settings = settings
        self._plan = plan
        self._publish = publish

    def count(self) -> int:
        found: list[int] = []

        def count() -> bool:
            # One that reads meanwhile has some, or all, in hand.
            if lock.is_free():
                found.append(depth(channel, self._plan.dead))
            return bool(found) and lock.is_free()

        with self._channel() as channel:
            lock = BrowseLock(channel.connection, self._plan.dead)
            lock.wait(count, _COUNT_WAIT)
        return found[-1]

    def __iter__(self) -> Iterator[DeadLetter]:
        with self._browser() as browser:
            for taken in browser:
                yield letter_of(self._plan.name, taken.message)

    def take(
        self,
        wanted: t.Callable[[DeadLetter], bool],
        replay: bool,
        progress: t.Callable[[], t.Any] = lambda: None,
    ) -> int:
        number = 0
        batch: list[_Wanted] = []
        with self._browser() as browser:
            for taken in browser:
                letter = letter_of(self._plan.name, taken.message)
                if wanted(letter):
                    batch.append(_Wanted(taken.tag, letter))
                if len(batch) == (_BATCH if replay else _PURGED):
                    number += self._remove(browser, batch, replay)
                    batch = []
                progress()
            return number + self._remove(browser, batch, replay)

    @contextlib.contextmanager
    def _channel(self) -> t.Iterator[t.Any]:
        doing = f"reading the dead letters of '{self._plan.name}'"
        with requests(self._settings, doing) as channel:
            yield channel

    @contextlib.contextmanager
    def _browser(self) -> t.Iterator[Browser]:
        plan = self._plan
        with self._channel() as channel, BrowseLock(channel.connection, plan.dead)():
            browser = Browser(channel, plan.dead, plan.type, plan.name)
            try:
                yield browser
            finally:
                browser.give_back()

    def _remove(self, browser: Browser, batch: Sequence[_Wanted], replay: bool) -> int:
        if not batch:
            return 0
        errors: Sequence[Exception | None] = [None] * len(batch)
        if replay:
            errors = self._publish([self._replayed(each.letter) for each in batch])
        settled = zip(batch, errors, strict=True)
        browser.remove(each.tag for each, error in settled if error is None)
        for error in errors:
            if error is not None:
                raise error
        return len(batch)

    def _replayed(self, letter: DeadLetter) -> Parcel:
        message = letter.message
        fresh = own_headers.make_replay_headers(message.headers)
        fresh.pop(UNREADABLE, None)
        basic = copied(message, fresh, _FRAME_MAX)
        return to_queue(basic, message.raw, self._plan.name)


def letter_of(queue: str, message: t.Any) -> DeadLetter:
    """A dead letter as it is shown."""
    return DeadLetter(
        ref=reference(message),
        queue=queue,
        message=message,
        headers=own_headers.select_own(message.headers),
    )


def reference(message: t.Any) -> str:
    """Twelve digits made of the id, the time of death and the body.

    One message may die twice (it was replayed, or delivered twice), and foreign ones
    have no id at all. Two letters have one reference only if they are alike in all.
    """
    died_at = message.headers.get(own_headers.DIED_AT)
    text = f"{message.id}|{died_at}|".encode("utf-8", "backslashreplace")
    return hashlib.sha256(text + message.raw).hexdigest()[:12]
