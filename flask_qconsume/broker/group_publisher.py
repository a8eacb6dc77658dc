"""Publishes messages of several callers in shared round trips, with retries."""

from __future__ import annotations

import abc
import time
import typing as t
from collections.abc import Sequence

from ..errors import BrokerError
from ..errors import BrokerUnavailable
from ..message import Outgoing
from .group_commit import CallerBatch
from .group_commit import GroupCommit
from .publish_request import PublishRequest
from .publish_request import Result
from .publish_request import RoundTrip
from .publish_request import copy_error
from .publish_request import split_into_round_trips


class GroupPublisher(abc.ABC):
    """Publishes messages; callers at the same time share round trips to the broker.

    Safe in any thread or greenlet. A subclass sends a round trip's messages.

    :param broker: The broker's name, for errors.
    """

    def __init__(self, broker: str) -> None:
        self._broker = broker

    @abc.abstractmethod
    def _group_commit(self) -> GroupCommit:
        """Return the group commit of this process."""

    @abc.abstractmethod
    def _prepare(self, seconds_left: float) -> None:
        """Declare the topology, unless this process has declared it already."""

    @abc.abstractmethod
    def _send(self, trip: RoundTrip, leader: PublishRequest) -> None:
        """Send the messages of one round trip, and settle each in its request."""

    def publish(self, messages: Sequence[Outgoing], timeout: float) -> list[Result]:
        """Publish messages; during an outage, retry until the time-out.

        :param timeout: Seconds for all messages together.
        :returns: For each message ``None``, or the error if it was not confirmed.
        """
        batch = PublishRequest(messages, time.monotonic() + timeout, self._broker)
        commit = self._group_commit()

        def send(batches: Sequence[CallerBatch]) -> None:
            self._send_all(t.cast("Sequence[PublishRequest]", batches), batch)

        while batch.await_next_attempt():
            commit.submit(batch, send, batch.deadline)
        return batch.results()

    def _send_all(
        self, batches: Sequence[PublishRequest], leader: PublishRequest
    ) -> None:
        """Send unfinished messages of all batches, until the leader's deadline."""
        try:
            self._prepare(leader.seconds_left)
            for trip in split_into_round_trips(batches):
                self._send(trip, leader)
        except BrokerUnavailable as error:
            for batch in batches:
                batch.note_outage(error)
        except BrokerError as error:
            for batch in batches:
                batch.fail(error if batch is leader else copy_error(error))
