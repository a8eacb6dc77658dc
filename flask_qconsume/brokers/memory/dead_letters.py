"""The dead letters of one queue in memory."""

from __future__ import annotations

import dataclasses
import typing as t
from collections.abc import Iterator

from ...broker.dead_letters import DeadLetter
from ...broker.dead_letters import DeadLetters
from ...broker.headers import make_replay_headers
from ...broker.headers import select_own
from ...broker.topology import QueuePlan
from .store import Store
from .store import StoredDeadLetter
from .store import create_stored


class MemoryDeadLetters(DeadLetters):
    """The dead letters of one queue in memory."""

    def __init__(self, store: Store, plan: QueuePlan) -> None:
        self._store = store
        self._plan = plan

    def count(self) -> int:
        return len(self._store.dead_letters(self._plan.dead))

    def __iter__(self) -> Iterator[DeadLetter]:
        stored = self._store.dead_letters(self._plan.dead)
        return (self._create_dead_letter(stored_letter) for stored_letter in stored)

    def take(
        self,
        wanted: t.Callable[[DeadLetter], bool],
        replay: bool,
        progress: t.Callable[[], t.Any] = lambda: None,
    ) -> int:
        taken_count = 0
        for letter in self._store.dead_letters(self._plan.dead):
            if wanted(self._create_dead_letter(letter)) and self._remove(
                letter, replay
            ):
                taken_count += 1
            progress()
        return taken_count

    def _remove(self, letter: StoredDeadLetter, replay: bool) -> bool:
        if not self._store.remove_dead_letter(self._plan.dead, letter):
            return False
        if replay:
            message = letter.message
            replayed = dataclasses.replace(
                message,
                headers=make_replay_headers(message.headers),
                attempt=1,
                deaths=0,
                expires_at=None,
            )
            self._store.queue(self._plan.name).put([create_stored(replayed)])
        return True

    def _create_dead_letter(self, letter: StoredDeadLetter) -> DeadLetter:
        return DeadLetter(
            ref=str(letter.number),
            queue=self._plan.name,
            message=letter.message,
            headers=select_own(letter.message.headers),
        )
