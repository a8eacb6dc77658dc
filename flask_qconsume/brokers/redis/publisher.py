"""Publishes messages to the queues bound to their exchange."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ...broker.compose import make_unroutable_error
from ...broker.group_commit import GroupCommit
from ...broker.group_publisher import GroupPublisher
from ...broker.publish_request import PublishRequest
from ...broker.publish_request import RequestMessage
from ...broker.publish_request import Result
from ...broker.publish_request import RoundTrip
from ...errors import BrokerUnavailable
from ...message import Outgoing
from .bindings import Bindings
from .scripts import Call
from .shared import Shared


@dataclass(frozen=True)
class RoutedPart:
    """A message, and those of its queues that one script can write to."""

    batch: PublishRequest
    #: The message's index in the batch.
    number: int
    queues: tuple[str, ...]
    call: Call
    #: Whether the queues' blocked readers must be woken, since the message does not.
    needs_wake: bool


class Publisher(GroupPublisher):
    """Publishes messages; each goes to all of its queues, or to none of them.

    In a cluster, this holds for queues in the same slot. A subclass knows the keys.
    """

    def __init__(
        self,
        shared: Shared[t.Any],
        bindings: Bindings,
        prepare: t.Callable[[float | None], None],
        declare_again: t.Callable[[float], None],
    ) -> None:
        super().__init__("Redis")
        self._shared = shared
        self._bindings = bindings
        #: Both take the seconds that are left.
        self._declare_once = prepare
        self._declare_again = declare_again

    def _group_commit(self) -> GroupCommit:
        return self._shared.server.group_commit()

    def _prepare(self, seconds_left: float) -> None:
        self._declare_once(seconds_left)

    def _send(self, trip: RoundTrip, leader: PublishRequest) -> None:
        routed_parts = [
            routed_part
            for batch, number in trip
            for routed_part in self._route_or_settle(batch, number, leader.seconds_left)
        ]
        calls = [routed_part.call for routed_part in routed_parts]
        answers = self._shared.server.publish(calls, leader.seconds_left)
        results: dict[RequestMessage, Result] = {}
        for routed_part, answer in zip(routed_parts, answers, strict=True):
            error = answer if isinstance(answer, Exception) else None
            key = routed_part.batch, routed_part.number
            if error is None:
                routed_part.batch.note_reached_queues(
                    routed_part.number, routed_part.queues
                )
            results[key] = results.get(key) or error
        for (batch, number), result in results.items():
            batch.settle(number, result)
        self._shared.wake(
            queue
            for routed_part in routed_parts
            if routed_part.needs_wake
            for queue in routed_part.queues
        )

    def _route_or_settle(
        self, batch: PublishRequest, number: int, seconds_left: float
    ) -> list[RoutedPart]:
        """Find a message's queues; if there are none left, set its result."""
        try:
            routed_parts = self._route(batch, number, seconds_left)
        except BrokerUnavailable:
            raise
        except Exception as error:
            # The error concerns this message only, not the messages sent with it.
            batch.settle(number, error)
            return []
        if not routed_parts:
            batch.settle(number, None)
        return routed_parts

    def _route(
        self, batch: PublishRequest, number: int, seconds_left: float
    ) -> list[RoutedPart]:
        """Find the queues that have not got a message yet, by cluster slot."""
        message, reached = batch.messages[number], batch.reached_queues(number)
        queues = [
            q for q in self._find_queues(message, seconds_left) if q not in reached
        ]
        return [
            RoutedPart(batch, number, group, *self._create_call(message, group))
            for group in self._shared.server.group_by_slot(queues, self._key_of)
        ]

    def _key_of(self, queue: str) -> str:
        """Return a key of the queue, to find the queue's node in a cluster."""
        return queue

    def _create_call(
        self, message: Outgoing, queues: tuple[str, ...]
    ) -> tuple[Call, bool]:
        """Return a script that puts a message into queues; and if readers must wake.

        Blocked readers must be woken if Redis does not end their wait for this message,
        for example because it is delayed.
        """
        raise NotImplementedError

    def _find_queues(self, message: Outgoing, seconds_left: float) -> tuple[str, ...]:
        exchange, key = message.exchange, message.routing_key
        queues = self._bindings.find_queues(exchange, key, seconds_left)
        if queues or not message.mandatory:
            return queues
        # The cache may be old, and a Redis that was emptied has lost the bindings.
        self._declare_again(seconds_left)
        queues = self._bindings.find_queues(exchange, key, seconds_left)
        if not queues:
            raise make_unroutable_error(message)
        return queues
