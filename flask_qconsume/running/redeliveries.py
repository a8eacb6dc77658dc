"""What this process still knows of messages when a connection was lost under them.

The broker gives them out again, marked as delivered before. That mark would make them
suspects, and handle them again; here is known better. No I/O.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ..broker.link import Delivery
from ..broker.link import Forward
from .settler import Settlement
from .settler import delivery_of

#: How many ids are kept at the most.
_MOST_IDS = 10_000


class Survivors:
    """The messages that outlived their connection in this process.

    What is forgotten is only handled once more, so there are bounds: bodies are kept
    for what was handled, and no more of them than two connections can have held.

    :param prefetch: How many messages one connection holds at the most.
    """

    def __init__(self, prefetch: int) -> None:
        self._most_answers = 2 * prefetch
        self._ids: set[str] = set()
        self._answers: dict[str, Settlement] = {}

    def __bool__(self) -> bool:
        """Whether anything is known."""
        return bool(self._ids or self._answers)

    def remember(self, identities: Iterable[str | None]) -> None:
        """These were unsettled when their connection was lost, and we are alive."""
        if len(self._ids) > _MOST_IDS:
            self._ids.clear()
        self._ids |= {id for id in identities if id is not None}

    def keep_answer(self, settlement: Settlement) -> None:
        """This was handled, and could not be settled any more."""
        id = delivery_of(settlement).identity
        if id is None:
            return
        if len(self._answers) >= self._most_answers:
            self._answers.clear()
        self._answers[id] = settlement

    def answer_to(self, delivery: Delivery) -> Settlement | None:
        """How to settle a message delivered again, if it was handled here before."""
        message, id = delivery.message, delivery.identity or ""
        answer = self._answers.get(id)
        if answer is None or not message.redelivered:
            return None
        handled = delivery_of(answer).message
        if (handled.raw, handled.attempt) != (message.raw, message.attempt):
            return None
        del self._answers[id]
        if isinstance(answer, Forward):
            return dataclasses.replace(answer, delivery=delivery)
        return delivery

    def include(self, delivery: Delivery) -> bool:
        """Whether a message delivered again has not killed this process; once."""
        id = delivery.identity
        if id is None or id not in self._ids:
            return False
        self._ids.discard(id)
        return True
