"""The dead letters of one queue on RabbitMQ.

AMQP cannot look without taking. A listing takes one after another, acknowledges none,
and closes its connection at the end, by which all go back to where they were.
"""

from __future__ import annotations

import contextlib
import hashlib
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence

from amqp.exceptions import NotFound

from ...errors import TopologyMismatch
from ...handling.payload import UNREADABLE
from ...settings import Settings
from .. import headers as ours
from ..base import DeadLetter
from ..base import DeadLetters
from ..topology import QueuePlan
from .arrivals import arrived
from .barrier import await_settled
from .connection import requests
from .copies import copied
from .copies import to_queue
from .parcel import Parcel
from .refusals import is_refused_as

#: How many are replayed at once.
_BATCH = 100

#: The smallest frame that AMQP allows is larger than ours ever need; the publisher
#: refuses what does not fit.
_FRAME_MAX = 131_072

Publish = t.Callable[[Sequence[Parcel]], list[Exception | None]]


class _Looked(t.NamedTuple):
    tag: int
    letter: DeadLetter


class RabbitDeadLetters(DeadLetters):
    """Looks at, removes and replays what is in ``<queue>.dead``."""

    def __init__(self, settings: Settings, plan: QueuePlan, publish: Publish) -> None:
        self._settings = settings
        self._plan = plan
        self._publish = publish

    def count(self) -> int:
        with self._channel() as channel:
            return depth(channel, self._plan.dead)

    def __iter__(self) -> Iterator[DeadLetter]:
        with self._channel() as channel:
            for looked in self._look(channel):
                yield looked.letter

    def take(
        self,
        wanted: t.Callable[[DeadLetter], bool],
        replay: bool,
        progress: t.Callable[[], t.Any] = lambda: None,
    ) -> int:
        taken = 0
        batch: list[_Looked] = []
        with self._channel() as channel:
            for looked in self._look(channel):
                if wanted(looked.letter):
                    batch.append(looked)
                if len(batch) == _BATCH:
                    taken += self._remove(channel, batch, replay)
                    batch = []
                progress()
            return taken + self._remove(channel, batch, replay)

    @contextlib.contextmanager
    def _channel(self) -> t.Iterator[t.Any]:
        doing = f"reading the dead letters of '{self._plan.name}'"
        with requests(self._settings, doing) as channel:
            yield channel

    def _look(self, channel: t.Any) -> Iterator[_Looked]:
        # Those that die meanwhile are not waited for: the loop would never end where
        # a replayed message fails at once.
        for _ in range(depth(channel, self._plan.dead)):
            content = channel.basic_get(self._plan.dead)
            if content is None:
                return
            message = arrived(content, self._plan.name)
            yield _Looked(content.delivery_tag, letter_of(self._plan.name, message))

    def _remove(self, channel: t.Any, batch: Sequence[_Looked], replay: bool) -> int:
        if not batch:
            return 0
        errors: Sequence[Exception | None] = [None] * len(batch)
        if replay:
            errors = self._publish([self._replayed(each.letter) for each in batch])
        for looked, error in zip(batch, errors, strict=True):
            if error is None:
                channel.basic_ack(looked.tag)
        await_settled(channel, self._plan.dead)
        for error in errors:
            if error is not None:
                raise error
        return len(batch)

    def _replayed(self, letter: DeadLetter) -> Parcel:
        message = letter.message
        fresh = ours.replayed(message.headers)
        fresh.pop(UNREADABLE, None)
        basic = copied(message, fresh, _FRAME_MAX)
        return to_queue(basic, message.raw, self._plan.name)


def letter_of(queue: str, message: t.Any) -> DeadLetter:
    """A dead letter as it is shown."""
    return DeadLetter(
        ref=reference(message),
        queue=queue,
        message=message,
        headers=ours.of_ours(message.headers),
    )


def reference(message: t.Any) -> str:
    """Twelve digits made of the id, the time of death and the body.

    One message may die twice (it was replayed, or delivered twice), and foreign ones
    have no id at all. Two letters have one reference only if they are alike in all.
    """
    died_at = message.headers.get(ours.DIED_AT)
    text = f"{message.id}|{died_at}|".encode("utf-8", "backslashreplace")
    return hashlib.sha256(text + message.raw).hexdigest()[:12]


def depth(channel: t.Any, queue: str) -> int:
    """How many messages wait in a queue; 0 if there is none of that name."""
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except NotFound as error:
        if is_refused_as(error, TopologyMismatch):
            return 0
        raise
