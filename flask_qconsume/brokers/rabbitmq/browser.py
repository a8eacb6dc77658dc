"""A browser of one queue: takes messages, keeps them, and requeues them in order.

AMQP cannot look at a message without taking it. A request for each message (Basic.Get)
is a round trip, and on a quorum queue a write to the disk: 30,000 messages took 65 s. A
consumer that acknowledges nothing receives as many messages at once as its prefetch
allows. The first consumer has a small prefetch, in case only the first few messages are
wanted; the prefetch of the next ones grows.
"""

from __future__ import annotations

import time
import typing as t
from collections import deque
from collections.abc import Iterable
from collections.abc import Iterator

from ...errors import BrokerUnavailable
from ...message import Message
from .ack_barrier import await_acks
from .amqp import frames
from .amqp.transport import is_timeout
from .depth import count_ready
from .incoming import convert_content
from .incoming import convert_delivery

#: The prefetch of the first consumer, the second, …; AMQP allows 65,535 at most.
_PREFETCHES = (100, 1_000, 10_000, 65_535)

#: Messages that are requeued at once. Quorum queues of RabbitMQ 3.10 keep the order of
#: up to 32; classic queues of any number, and they sort the whole queue each time.
_REQUEUED_AT_ONCE = {"quorum": 32, "classic": 1_000_000_000}

#: Settlements between two barriers: RabbitMQ's channel hands 32 at once to a quorum
#: queue, and merges further ones, in another order.
_SETTLEMENTS_PER_BARRIER = 30

#: Seconds without a message after which the queue is counted again: messages may have
#: expired since it was counted.
_RECOUNT_SECONDS = 3.0
#: Seconds without a message after which the browser fails.
_GIVE_UP_SECONDS = 30.0


class TakenMessage(t.NamedTuple):
    """A message that the browser has received, and its delivery tag."""

    tag: int
    message: Message


class Browser:
    """Reads the messages of one queue, without removing them, on its own channel.

    :param type: ``"quorum"`` or ``"classic"``.
    :param shown_as: The :attr:`~flask_qconsume.Message.queue` of the messages.
    """

    def __init__(self, channel: t.Any, queue: str, type: str, shown_as: str) -> None:
        self._channel = channel
        self._connection = channel.connection
        self._queue = queue
        self._requeued_at_once = _REQUEUED_AT_ONCE[type]
        self._shown_as = shown_as
        self._received: deque[TakenMessage] = deque()
        #: Tags of messages that are neither removed nor requeued, in order of arrival.
        self._kept_messages: dict[int, None] = {}
        self._consumer_tags: list[str] = []
        #: How many more messages the broker may send us.
        self._credit = 0
        self._last_arrival = 0.0
        channel.on_raw_delivery = self._on_raw_delivery

    def __iter__(self) -> Iterator[TakenMessage]:
        """Yield the messages that the queue holds now, the oldest first.

        Messages that arrive during the loop are left out. Otherwise a replay of
        messages that fail at once would never end.
        """
        number = count_ready(self._channel, self._queue)
        self._last_arrival = time.monotonic()
        for _ in range(number):
            if not self._await_message():
                return
            yield self._received.popleft()

    def remove(self, tags: Iterable[int]) -> None:
        """Remove messages, and wait until the broker has stored the removal on disk."""
        for tag in tags:
            self._channel.basic_ack(tag)
            del self._kept_messages[tag]
            self._credit += 1
        await_acks(self._channel, self._queue)

    def requeue_kept(self) -> None:
        """Requeue all messages that were not removed, each to its old place."""
        if not (self._consumer_tags and self._connection.connected):
            return
        for consumer_tag in self._consumer_tags:
            self._channel.basic_cancel(consumer_tag)
        tags, size = list(self._kept_messages), self._requeued_at_once
        # The last tag of each group stands for the group ('multiple').
        lasts = list(dict.fromkeys([*tags[size - 1 :: size], *tags[-1:]]))
        for start in range(0, len(lasts), _SETTLEMENTS_PER_BARRIER):
            self._requeue(lasts[start : start + _SETTLEMENTS_PER_BARRIER])
        self._consumer_tags.clear()
        self._kept_messages.clear()

    def _requeue(self, lasts: Iterable[int]) -> None:
        number = self._channel.channel_id
        self._connection.write(
            b"".join(frames.build_requeue(number, tag, multiple=True) for tag in lasts)
        )
        await_acks(self._channel, self._queue)

    def _await_message(self) -> bool:
        """Wait for a message; return ``False`` if the queue has no more."""
        while not self._received:
            if self._credit <= 0:
                self._add_consumer()
            silent_for = time.monotonic() - self._last_arrival
            if silent_for > _GIVE_UP_SECONDS:
                raise BrokerUnavailable(
                    f"RabbitMQ has sent none of the messages of '{self._queue}' for"
                    f" {silent_for:.0f} s, although some wait. Try again."
                )
            if silent_for > _RECOUNT_SECONDS and self._is_empty():
                return False
            self._read()
        return True

    def _is_empty(self) -> bool:
        return not count_ready(self._channel, self._queue)

    def _add_consumer(self) -> None:
        number = len(self._consumer_tags)
        prefetch = _PREFETCHES[min(number, len(_PREFETCHES) - 1)]
        consumer_tag = f"qconsume.browser.{number}"
        self._consumer_tags.append(consumer_tag)
        self._credit += prefetch
        self._channel.basic_qos(0, prefetch, False)
        self._channel.basic_consume(
            self._queue, consumer_tag, callback=self._on_content
        )

    def _read(self) -> None:
        timeout = self._connection.sock.gettimeout()
        self._connection.sock.settimeout(_RECOUNT_SECONDS)
        try:
            self._connection.read_available()
        except TimeoutError as error:
            if not is_timeout(error):
                raise
        finally:
            self._connection.sock.settimeout(timeout)

    def _on_raw_delivery(self, delivery: frames.BasicDeliver) -> None:
        self._add(delivery.tag, convert_delivery(delivery, self._shown_as))

    def _on_content(self, content: frames.Content) -> None:
        tag = content.delivery_info["delivery_tag"]
        self._add(tag, convert_content(content, self._shown_as))

    def _add(self, tag: int, message: Message) -> None:
        self._kept_messages[tag] = None
        self._credit -= 1
        self._received.append(TakenMessage(tag, message))
        self._last_arrival = time.monotonic()
