"""What ends no wait: one looks for it, for all links of the process that wait.

A link waits in Redis for what comes into its queue, and that can be for long. What
becomes due, what somebody gives back, and what has a priority that the wait is not for,
does not end it. A look at one queue costs as much as a wait, and at fifty hardly more.
"""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable
from collections.abc import Sequence

from ...errors import BrokerError
from ...logs import get_logger
from .scripts import Call

logger = get_logger("flask_qconsume.redis")

#: Seconds between two looks: so late may come what ends no wait.
POLL_INTERVAL = 1.0


class Waiting(t.Protocol):
    """A link that may be waiting."""

    def create_poll_call(self) -> Call | None:
        """What tells if it waits for too long; ``None`` if it does not wait."""

    def note_poll_answer(self, answer: t.Any) -> None:
        """What came of that."""


class BlockedReaderPoller:
    """Looks for what waits do not see, as long as there are links.

    :param run: Runs scripts in one round trip; an error of Redis' is an answer.
    :param every: Seconds between two looks.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Call]], Sequence[t.Any]],
        every: float = POLL_INTERVAL,
    ) -> None:
        self._run = run
        self._every = every
        self._links: dict[Waiting, None] = {}
        self._gate = threading.Lock()
        self._empty = threading.Event()
        self._runs = False

    def add(self, link: Waiting) -> None:
        """Look for this one, too."""
        with self._gate:
            self._links[link] = None
            self._empty.clear()
            if not self._runs:
                self._runs = True
                # A greenlet, where there are some.
                threading.Thread(target=self._go_on, daemon=True).start()

    def discard(self, link: Waiting) -> None:
        """Look for this one no more."""
        with self._gate:
            self._links.pop(link, None)
            if not self._links:
                self._empty.set()

    def look(self) -> None:
        """Look once, and tell each of those that wait."""
        asked = [
            (link, call)
            for link in list(self._links)
            if (call := link.create_poll_call())
        ]
        try:
            answers = self._run([call for _, call in asked]) if asked else ()
        except BrokerError:
            return  # Those that wait find out by themselves that it is away.
        for (link, _), answer in zip(asked, answers, strict=True):
            if not isinstance(answer, Exception):
                link.note_poll_answer(answer)

    def _go_on(self) -> None:
        while not self._is_over():
            try:
                if not self._empty.wait(self._every):
                    self.look()
            except BaseException:
                # Under gevent this is a greenlet, and what kills all that it finds
                # would end it; nothing starts another one.
                logger.exception("Looking for what waits unseen was cut off")

    def _is_over(self) -> bool:
        with self._gate:
            if not self._links:
                self._runs = False
            return not self._links
