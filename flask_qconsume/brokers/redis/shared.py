"""State that one app's links, publisher and dead letters on Redis share."""

from __future__ import annotations

import typing as t
import weakref

from ...first_use import PerProcess
from ...logs import get_logger
from ...settings import Settings
from ...text import escape
from .blocked_readers import BlockedReader
from .blocked_readers import BlockedReaderPoller
from .keys import Layout
from .leases import Orphans
from .server import Server

logger = get_logger("flask_qconsume.brokers.redis")

L = t.TypeVar("L", bound=Layout)


class Shared(t.Generic[L]):
    """Objects that the links, the publisher and the dead letters of one app share."""

    def __init__(self, settings: Settings, layout: L, server: Server) -> None:
        self.settings = settings
        self.layout = layout
        self.server = server
        self.orphans = Orphans()
        self.links: weakref.WeakSet[BlockedReader] = weakref.WeakSet()
        self.poller = PerProcess(lambda: BlockedReaderPoller(server.run))
        self._warnings: set[str] = set()
        #: Declares bindings that are not declared yet; set by the broker.
        self.prepare: t.Callable[[], None] = lambda: None

    def warn(self, text: str) -> None:
        """Log a warning, once in this process for each text."""
        if text not in self._warnings:
            self._warnings.add(text)
            logger.warning("%s", escape(text, 1_000))

    def wake(self, queues: t.Iterable[str]) -> None:
        """Wake the readers of these queues in this process."""
        names = set(queues)
        for link in [link for link in self.links if link.queue in names]:
            link.wake()
