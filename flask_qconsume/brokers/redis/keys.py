"""The interface of a layout, which names the keys in Redis for queues and bindings."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from collections.abc import Sequence


class Layout(t.Protocol):
    """The names of the keys in which an app keeps its queues and bindings in Redis."""

    @property
    def sep(self) -> str:
        """The separator between routing key, pattern and queue of a binding."""

    @property
    def shared_keys(self) -> Sequence[str]:
        """The keys of kombu for the unsettled messages of all queues; may be empty."""

    def describe_keys(self, queue: str) -> Iterable[tuple[str, str]]:
        """Yield each key of a queue with a description.

        In the description, ``{}`` stands for the queue; the caller replaces it.
        """

    def dead_key(self, queue: str) -> str:
        """Return the key of dead letters; ``queue`` is ``<name of a queue>.dead``."""

    def binding_keys(self, exchange: str) -> list[str]:
        """Return the keys of an exchange's bindings: write to all, read the first."""
