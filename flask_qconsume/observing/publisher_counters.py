"""The numbers of this process that belong to no consumer: places in its value file."""

from __future__ import annotations

from collections.abc import Sequence

from .consumer_counters import Histogram
from .metric_table import CONFIRM_SECONDS
from .metric_table import PUBLISHED
from .value_file import ValueFile


class PublisherCounters:
    """Counts what one app publishes."""

    def __init__(self, file: ValueFile) -> None:
        confirmed, failed, seconds = file.add(
            [
                (PUBLISHED.name, ("confirmed",), ()),
                (PUBLISHED.name, ("failed",), ()),
                (CONFIRM_SECONDS.name, (), CONFIRM_SECONDS.buckets),
            ]
        )
        self._values = confirmed.values
        self._confirmed, self._failed = confirmed.first, failed.first
        self._seconds = Histogram(CONFIRM_SECONDS, seconds)

    def count(self, errors: Sequence[BaseException | None], seconds: float) -> None:
        """Count the messages of one call.

        :param errors: For each message, ``None`` if it was confirmed.
        :param seconds: How long the call took.
        """
        confirmed = errors.count(None)
        self._values[self._confirmed] += confirmed
        if confirmed < len(errors):
            self._values[self._failed] += len(errors) - confirmed
        self._seconds.observe_one(seconds)
