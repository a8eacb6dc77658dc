"""How a consumer reads its topics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .partition import Due


@dataclass(frozen=True)
class ConsumerTerms:
    """How much a consumer holds, in which order it hands out, how it gives up."""

    #: Number of unsettled records that the hub wants to hold.
    room: int
    #: Whether more records than that may be marked, so that fast handlers never wait
    #: for a commit.
    ahead: bool = True
    #: ``"none"``, ``"key"`` or ``"partition"``.
    ordering: str = "none"
    #: Whether a topic holds its records back until they are due.
    delayed: Callable[[str], bool] = lambda topic: False
    #: When a record of such a topic is due, in seconds since 1970.
    due: Due = lambda record: 0.0
    #: Seconds that a partition which is taken away waits for running handlers.
    grace: float = 10.0
