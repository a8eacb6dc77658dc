"""The dead letters of one queue, in the table ``qconsume_dead``."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator

from ...broker import headers as own_headers
from ...broker.dead_letters import DeadLetter
from ...broker.dead_letters import DeadLetters
from ...broker.topology import QueuePlan
from . import statements
from .app_database import AppDatabase
from .database import Step
from .rows import encode_copy
from .rows import read_message

_LETTERS_PER_PAGE = 100


class SqlDeadLetters(DeadLetters):
    """The dead letters of one queue in a database."""

    def __init__(self, plan: QueuePlan, shared: AppDatabase) -> None:
        self._plan = plan
        self._shared = shared

    def count(self) -> int:
        parameters = {"queue_": self._plan.dead}
        (number,) = self._shared.database.read_one(statements.COUNT_DEAD, parameters)
        return int(number)

    def __iter__(self) -> Iterator[DeadLetter]:
        after = 0
        while rows := self._read_page(after):
            for after, meta, body in rows:
                message = read_message(meta, body, self._plan.name)
                headers = own_headers.select_own(message.headers)
                yield DeadLetter(str(after), self._plan.name, message, headers)

    def take(
        self,
        wanted: t.Callable[[DeadLetter], bool],
        replay: bool,
        progress: t.Callable[[], t.Any] = lambda: None,
    ) -> int:
        taken_count = 0
        for letter in self:
            if wanted(letter):
                taken_count += self._take(letter, replay)
            progress()
        return taken_count

    def _take(self, letter: DeadLetter, replay: bool) -> int:
        id = int(letter.ref)
        steps = [Step(statements.DELETE_DEAD, {"id_": id})]
        if replay:
            steps.insert(0, self._create_replay(letter))
        *_, deleted = self._shared.database.write(steps)
        if replay and deleted.changed:
            self._shared.watcher.announce({self._plan.name})
        return deleted.changed

    def _create_replay(self, letter: DeadLetter) -> Step:
        message, queue = letter.message, self._plan.name
        headers = own_headers.make_replay_headers(message.headers)
        values = {
            "id_": int(letter.ref),
            "queue_": queue,
            "rank_": -(message.priority or 0),
            "key_": message.key,
            "meta_": encode_copy(message, headers, queue),
        }
        return Step(statements.REPLAY, values)

    def _read_page(self, after: int) -> list[t.Any]:
        values = {"queue_": self._plan.dead, "after": after, "n": _LETTERS_PER_PAGE}
        return self._shared.database.read(statements.READ_DEAD, values)
