"""A message on its way to the broker, encoded, and what became of it. No I/O."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Mapping
from collections.abc import Sequence

from ...errors import PublishRefused
from ...text import quote
from .amqp import frames
from .amqp.properties import written
from .wait_queues import Step

#: The longest expiration that RabbitMQ takes, some 49 days, in milliseconds.
_MAX_EXPIRATION = 2**32 - 1


class Parcel:
    """One message that is published: sent as often as it takes, confirmed once."""

    __slots__ = (
        "batch",
        "body",
        "done",
        "error",
        "exchange",
        "id",
        "method",
        "ours",
        "problem",
        "properties",
        "redeclared",
        "routing_key",
        "step",
    )

    def __init__(
        self,
        properties: Mapping[str, t.Any],
        body: bytes,
        *,
        exchange: str,
        routing_key: str,
        mandatory: bool = True,
        step: Step | None = None,
        ours: bool = False,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        #: The wait queue that must be declared before, if it goes to one.
        self.step = step
        #: Whether it goes to a queue that we declare: if that is gone it comes back.
        self.ours = ours
        self.redeclared = False
        self.id = properties.get("message_id")
        self.body = body
        self.method = frames.publish_method(exchange, routing_key, mandatory=mandatory)
        self.properties = written(properties)
        self.batch: Batch | None = None
        self.done = False
        self.error: Exception | None = None
        #: Why the broker returned it; its confirmation is still to come.
        self.problem: Exception | None = None

    def finish(self, error: Exception | None) -> bool:
        """Settle its fate; later news about it counts no more.

        :returns: Whether it was the last of its batch, whose caller goes on now.
        """
        if self.done:
            return False
        self.done = True
        self.error = error
        return self.batch is not None and self.batch.one_done()

    def once_more(self) -> bool:
        """Whether to try again after the topology was declared again: once."""
        first, self.redeclared = not self.redeclared, True
        return first

    def is_returned_as(self, exchange: str, routing_key: str, content: t.Any) -> bool:
        """Whether this is the message that the broker returned."""
        return (
            self.problem is None
            and not self.done
            and self.exchange == exchange
            and self.routing_key == routing_key
            and self.body == content.body
            and self.id == content.properties.get("message_id")
        )

    def frames(self, channel: int, frame_max: int) -> list[bytes]:
        """Its frames.

        :raises PublishRefused: if its headers do not fit into one.
        """
        if frames.header_size(self.properties) > frame_max:
            raise PublishRefused(
                f"The headers of a message to {quote(self.routing_key)} take"
                f" {len(self.properties)} bytes; RabbitMQ allows {frame_max} here."
                " Put what is long into the body."
            )
        return frames.publish(
            channel, self.method, self.properties, self.body, frame_max=frame_max
        )


class Batch:
    """The parcels of one caller, who waits until all of them are done."""

    def __init__(self, parcels: Sequence[Parcel]) -> None:
        self._left = len(parcels)
        self._over = threading.Event()
        for parcel in parcels:
            parcel.batch = self
        if not parcels:
            self._over.set()

    def one_done(self) -> bool:
        """Called under the publisher's lock; whether it was the last one."""
        self._left -= 1
        if self._left > 0:
            return False
        self._over.set()
        return True

    def wait(self, timeout: float) -> bool:
        return self._over.wait(timeout)


def expiration(seconds: float) -> str | None:
    """AMQP's ``expiration``; ``None``, never, if it is longer than the broker takes."""
    milliseconds = max(1, round(seconds * 1000))
    return str(milliseconds) if milliseconds <= _MAX_EXPIRATION else None
