"""What the links, the publisher and the dead letters of one app have in common."""

from __future__ import annotations

import typing as t
import weakref

from ...first_use import PerProcess
from ...logs import get_logger
from ...settings import Settings
from ...text import escape
from .blocked_readers import BlockedReaderPoller
from .server import Server

logger = get_logger("flask_qconsume.brokers.redis")

L = t.TypeVar("L")


class Waiting(t.Protocol):
    """A link that may be waiting for messages."""

    @property
    def queue(self) -> str: ...

    def wake(self) -> None:
        """Let it look again at once."""


class Shared(t.Generic[L]):
    """One app's Redis in this process."""

    def __init__(self, settings: Settings, layout: L, server: Server) -> None:
        self.settings = settings
        self.layout = layout
        self.server = server
        #: By queue, what a link could not give back because Redis was away (its
        #: messages' tags, or its own name); the next link of that queue does.
        self.orphans: dict[str, list[str]] = {}
        self.links: weakref.WeakSet[t.Any] = weakref.WeakSet()
        self.poller = PerProcess(lambda: BlockedReaderPoller(server.run))
        self._told: set[str] = set()
        #: Declares what could not be declared before; set by the broker.
        self.prepare: t.Callable[[], None] = lambda: None

    def warn(self, text: str) -> None:
        """Log what an operator should change, once for each thing and process."""
        if text not in self._told:
            self._told.add(text)
            logger.warning("%s", escape(text, 1_000))

    def wake(self, queues: t.Iterable[str]) -> None:
        """Let the links of these queues look for what their waits do not see."""
        names = set(queues)
        for link in [link for link in self.links if link.queue in names]:
            link.wake()
