"""The dead letters of one queue in memory."""

from __future__ import annotations

import dataclasses
import typing as t
from collections.abc import Iterator

from ...broker.base import DeadLetter
from ...broker.base import DeadLetters
from ...broker.headers import make_replay_headers
from ...broker.headers import select_own
from ...broker.topology import QueuePlan
from .store import Grave
from .store import Store
from .store import entry_of


class MemoryDeadLetters(DeadLetters):
    """Reads and removes what :meth:`Store.bury` keeps."""

    def __init__(self, store: Store, plan: QueuePlan) -> None:
        self._store = store
        self._plan = plan

    def count(self) -> int:
        return len(self._store.graves(self._plan.dead))

    def __iter__(self) -> Iterator[DeadLetter]:
        return (self._letter(grave) for grave in self._store.graves(self._plan.dead))

    def take(
        self,
        wanted: t.Callable[[DeadLetter], bool],
        replay: bool,
        progress: t.Callable[[], t.Any] = lambda: None,
    ) -> int:
        taken = 0
        for grave in self._store.graves(self._plan.dead):
            if wanted(self._letter(grave)) and self._remove(grave, replay):
                taken += 1
            progress()
        return taken

    def _remove(self, grave: Grave, replay: bool) -> bool:
        if not self._store.exhume(self._plan.dead, grave):
            return False
        if replay:
            message = grave.message
            fresh = dataclasses.replace(
                message,
                headers=make_replay_headers(message.headers),
                attempt=1,
                deaths=0,
                expires_at=None,
            )
            self._store.queue(self._plan.name).put([entry_of(fresh)])
        return True

    def _letter(self, grave: Grave) -> DeadLetter:
        return DeadLetter(
            ref=str(grave.number),
            queue=self._plan.name,
            message=grave.message,
            headers=select_own(grave.message.headers),
        )
