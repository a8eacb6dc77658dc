"""What the links, the publisher and the dead letters of one app have in common."""

from __future__ import annotations

import typing as t
import weakref

from ...settings import Settings
from .layout import layout_of
from .server import Server


class Waiting(t.Protocol):
    """A link that may be waiting for messages."""

    @property
    def queue(self) -> str: ...

    def wake(self) -> None:
        """Let it look again at once."""


class Shared:
    """One app's Redis in this process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.layout = layout_of(settings.transport_options)
        self.server = Server(settings)
        #: By queue, the tags of messages that a link could not give back because Redis
        #: was away; the next link of that queue does.
        self.orphans: dict[str, list[str]] = {}
        self.links: weakref.WeakSet[t.Any] = weakref.WeakSet()

    def wake(self, queues: t.Iterable[str]) -> None:
        """Let the links of these queues look for what their waits do not see."""
        names = set(queues)
        for link in [link for link in self.links if link.queue in names]:
            link.wake()
