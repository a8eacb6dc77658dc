"""The interface of a layout, which names the keys in Redis for queues and bindings."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from collections.abc import Sequence


class Layout(t.Protocol):
    """The names of the keys that an app uses in Redis."""

    @property
    def sep(self) -> str:
        """The separator of the parts of a binding."""

    @property
    def shared_keys(self) -> Sequence[str]:
        """The keys of kombu that all queues share."""

    def describe_keys(self, queue: str) -> Iterable[tuple[str, str]]:
        """Yield the keys of a queue, each with a description.

        In a description, ``{}`` is to be replaced by the description of the queue.
        """

    def dead_key(self, queue: str) -> str:
        """Return the key of dead letters; ``queue`` is their name, with ``.dead``."""

    def binding_keys(self, exchange: str) -> list[str]:
        """Return the keys of an exchange's bindings; the first one is read."""
