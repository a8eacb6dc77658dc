"""The interface of a layout, which names the keys in Redis for queues and bindings."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from collections.abc import Sequence


class Layout(t.Protocol):
    """The names of the keys in which an app's queues and bindings are kept in Redis."""

    @property
    def sep(self) -> str:
        """The separator between a binding's routing key, pattern and queue."""

    @property
    def shared_keys(self) -> Sequence[str]:
        """The keys in which kombu keeps unsettled messages of all queues, if any."""

    def describe_keys(self, queue: str) -> Iterable[tuple[str, str]]:
        """Yield each key of a queue with a description.

        In the description, ``{}`` stands for the queue; the caller replaces it.
        """

    def dead_key(self, queue: str) -> str:
        """Return the key that holds dead letters."""

    def binding_keys(self, exchange: str) -> list[str]:
        """Return the keys that hold an exchange's bindings; the first is read."""
