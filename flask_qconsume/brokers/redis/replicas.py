"""Confirms a message only after replicas have it (transport option ``wait_replicas``).

Only publishing waits. Settling moves a message in one step, and a replica has a state
that the server had at some moment. So after a failover the message is either in its old
place or in its new one.
"""

from __future__ import annotations

import typing as t
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import BrokerError
from ...errors import ConfigurationError
from ...errors import PublishTimeout
from ...text import quote
from .connections import RedisConnection
from .options import REPLICAS
from .options import REPLICAS_TIMEOUT

_DEFAULT_TIMEOUT_SECONDS = 1.0
#: Seconds that Redis may take to answer after its own time-out.
_ANSWER_SECONDS = 1.0


@dataclass(frozen=True)
class Replicas:
    """Waits until enough replicas have a message, as ``wait_replicas`` asks."""

    wanted: int = 0
    seconds: float = _DEFAULT_TIMEOUT_SECONDS

    def confirm(
        self,
        connection: RedisConnection,
        answers: Sequence[t.Any],
        seconds_left: float | None,
    ) -> list[t.Any]:
        """Wait for replicas; replace the answers by errors if too few confirm."""
        if not self.wanted or all(isinstance(a, BrokerError) for a in answers):
            return list(answers)
        seconds = (
            self.seconds
            if seconds_left is None
            else max(0.001, min(self.seconds, seconds_left))
        )
        wait = ("WAIT", self.wanted, round(seconds * 1000) or 1)
        reached = connection.ask(*wait, timeout=seconds + _ANSWER_SECONDS)
        if reached >= self.wanted:
            return list(answers)
        error = PublishTimeout(
            f"Redis has the message, but only {reached} of the {self.wanted} replicas"
            f" that '{REPLICAS}' asks for had it within {seconds:g} s: a failover may"
            " lose it. Published again, it may come twice."
        )
        return [a if isinstance(a, BrokerError) else error for a in answers]


def read_replica_options(options: Mapping[str, t.Any]) -> Replicas:
    """Read the transport options about replicas.

    :raises ConfigurationError: for invalid values.
    """
    replica_count = options.get(REPLICAS, 0)
    if (
        not isinstance(replica_count, int)
        or isinstance(replica_count, bool)
        or replica_count < 0
    ):
        raise ConfigurationError(
            f"'{REPLICAS}' in 'QCONSUME_TRANSPORT_OPTIONS' must be a number of"
            f" replicas, not {quote(replica_count)}."
        )
    seconds = options.get(REPLICAS_TIMEOUT, _DEFAULT_TIMEOUT_SECONDS)
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not number or not seconds > 0:
        raise ConfigurationError(
            f"'{REPLICAS_TIMEOUT}' in 'QCONSUME_TRANSPORT_OPTIONS' must be a number of"
            f" seconds above 0, not {quote(seconds)}."
        )
    return Replicas(replica_count, float(seconds))
