"""Gauges of queues, made from what the broker told about them."""

from __future__ import annotations

from collections.abc import Iterator

from ..broker.base import QueueStatus
from .metric_table import QUEUE_DEAD_LETTERS
from .metric_table import QUEUE_DELAYED
from .metric_table import QUEUE_IN_HAND
from .metric_table import QUEUE_LAG
from .metric_table import QUEUE_OLDEST_SECONDS
from .metric_table import QUEUE_READ_SECONDS
from .metric_table import QUEUE_READY
from .metric_table import QUEUE_SUSPECTS
from .series import Series
from .series import make_gauge


def make_queue_gauges(
    consumer: str,
    queue: str,
    status: QueueStatus,
    *,
    dates_waiting: bool,
    read_at: float,
) -> Iterator[Series]:
    """Yield a gauge for each number that the broker could tell.

    :param dates_waiting: Whether the broker tells the age of waiting messages, so that
        no age means that none waits.
    :param read_at: The time of the reading, in seconds since 1970.
    """
    age = None if status.oldest is None else max(0.0, read_at - status.oldest)
    if dates_waiting and status.waiting == 0:
        age = 0.0
    suspects = status.suspects
    values = {
        QUEUE_READY: status.waiting,
        QUEUE_DELAYED: status.delayed,
        QUEUE_IN_HAND: status.in_hand,
        QUEUE_SUSPECTS: None if suspects is None else suspects.waiting,
        QUEUE_DEAD_LETTERS: status.dead_letters,
        QUEUE_OLDEST_SECONDS: age,
        QUEUE_LAG: status.lag,
        QUEUE_READ_SECONDS: read_at,
    }
    for metric, value in values.items():
        if value is not None:
            yield make_gauge(metric, value, consumer, queue)
