"""How a consumer reads its topics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .partition import Due


@dataclass(frozen=True)
class ConsumerTerms:
    """How a consumer reads: how many records at once, in which order, which delays."""

    #: Number of unsettled records that may be handed out.
    room: int
    #: Whether more records may be marked ahead, so that fast handlers never wait for a
    #: commit.
    ahead: bool = True
    #: ``"none"``, ``"key"`` or ``"partition"``.
    ordering: str = "none"
    #: Whether a topic holds its records back until they are due.
    delayed: Callable[[str], bool] = lambda topic: False
    #: When a record of such a topic is due, in seconds since 1970.
    due: Due = lambda record: 0.0
    #: Seconds that a partition which is taken away waits for running handlers.
    grace: float = 10.0
