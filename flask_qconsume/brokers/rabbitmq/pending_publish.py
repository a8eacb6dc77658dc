"""A message that is being published: its encoded form, and its result. No I/O."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Mapping
from collections.abc import Sequence

from ...errors import PublishRefused
from ...text import quote
from .amqp import frames
from .amqp.properties import encode_properties
from .wait_queues import WaitQueue

#: The longest expiration that RabbitMQ accepts: milliseconds, about 49 days.
_MAX_EXPIRATION_MS = 2**32 - 1


class PendingPublish:
    """A message being published: it is kept until the broker has confirmed it.

    :param properties: Properties by AMQP's names, and ``headers``.
    :param wait_queue: The wait queue that must be declared before the message is sent.
    :param ours: Whether this package declares the message's exchange or queue. If this
        was deleted, it is declared again, and the message is sent a second time.
    """

    __slots__ = (
        "batch",
        "body",
        "done",
        "error",
        "exchange",
        "id",
        "method",
        "ours",
        "properties",
        "return_error",
        "routing_key",
        "sent_again",
        "wait_queue",
    )

    def __init__(
        self,
        properties: Mapping[str, t.Any],
        body: bytes,
        *,
        exchange: str,
        routing_key: str,
        mandatory: bool = True,
        wait_queue: WaitQueue | None = None,
        ours: bool = False,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.wait_queue = wait_queue
        self.ours = ours
        self.sent_again = False
        self.id = properties.get("message_id")
        self.body = body
        self.method = frames.build_publish_method(
            exchange, routing_key, mandatory=mandatory
        )
        self.properties = encode_properties(properties)
        self.batch: PublishBatch | None = None
        self.done = False
        #: Why publishing failed; ``None`` once :attr:`done` means confirmed.
        self.error: Exception | None = None
        #: Why the broker returned the message; its confirmation is still to come.
        self.return_error: Exception | None = None

    def finish(self, error: Exception | None) -> bool:
        """Set the result of the message; a later result is ignored.

        :returns: Whether this was the last message of its batch. If so, the caller that
            waits for the batch wakes.
        """
        if self.done:
            return False
        self.done = True
        self.error = error
        return self.batch is not None and self.batch.count_finished()

    def claim_second_attempt(self) -> bool:
        """Note that a second, last attempt to send is made, after a declaration.

        :returns: ``False`` if the message was sent a second time already.
        """
        first, self.sent_again = not self.sent_again, True
        return first

    def is_returned_as(self, exchange: str, routing_key: str, content: t.Any) -> bool:
        """Return whether the message that RabbitMQ returned may be this one."""
        return (
            self.return_error is None
            and not self.done
            and self.exchange == exchange
            and self.routing_key == routing_key
            and self.body == content.body
            and self.id == content.properties.get("message_id")
        )

    def build_frames(self, channel: int, frame_max: int) -> list[bytes]:
        """Build the AMQP frames of the message.

        :param frame_max: Bytes that a frame may have.
        :raises PublishRefused: if the headers do not fit into one frame.
        """
        if frames.header_frame_size(self.properties) > frame_max:
            raise PublishRefused(
                f"The headers of a message to {quote(self.routing_key)} take"
                f" {len(self.properties)} bytes; RabbitMQ allows {frame_max} here."
                " Put what is long into the body."
            )
        return frames.build_publish(
            channel, self.method, self.properties, self.body, frame_max=frame_max
        )


#: Publishes messages: returns for each ``None``, or why it was not published.
Publish = t.Callable[[Sequence[PendingPublish]], list[Exception | None]]


class PublishBatch:
    """The messages of one call of ``publish``, which waits until all are done."""

    def __init__(self, messages: Sequence[PendingPublish]) -> None:
        self._unfinished = len(messages)
        self._finished = threading.Event()
        for message in messages:
            message.batch = self
        if not messages:
            self._finished.set()

    def count_finished(self) -> bool:
        """Count one more finished message; the publisher's lock must be held.

        :returns: Whether all messages are done.
        """
        self._unfinished -= 1
        if self._unfinished > 0:
            return False
        self._finished.set()
        return True

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; return whether all messages are done."""
        return self._finished.wait(timeout)


def encode_expiration(seconds: float) -> str | None:
    """Convert seconds to AMQP's ``expiration``; ``None`` for too many seconds."""
    milliseconds = max(1, round(seconds * 1000))
    return str(milliseconds) if milliseconds <= _MAX_EXPIRATION_MS else None
