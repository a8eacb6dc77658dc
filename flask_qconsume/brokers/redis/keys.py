"""The interface of a layout: which keys in Redis hold the messages of a queue."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from collections.abc import Sequence


class Layout(t.Protocol):
    """The names of all keys of an app."""

    @property
    def sep(self) -> str:
        """The text between the parts of a binding."""

    @property
    def shared_keys(self) -> Sequence[str]:
        """Keys of kombu that all queues use."""

    def describe_keys(self, queue: str) -> Iterable[tuple[str, str]]:
        """Yield the keys of a queue, each with a description.

        The description has ``{}`` in place of the queue's own description.
        """

    def dead_key(self, queue: str) -> str:
        """Return the key of dead letters; ``queue`` is a name with ``.dead``."""

    def binding_keys(self, exchange: str) -> list[str]:
        """Return the keys of an exchange's bindings; the first one is read."""
