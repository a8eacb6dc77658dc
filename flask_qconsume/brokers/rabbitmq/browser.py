"""A browser of one queue: it takes messages, keeps them, and gives them back in order.

AMQP cannot look at a message without taking it. One request for each is a round trip,
and on a quorum queue a write to the disk: 30,000 took 65 s. Consumers that acknowledge
nothing are sent as many at once as their prefetch says: a small one first, in case only
the first few are looked at, then larger ones.
"""

from __future__ import annotations

import time
import typing as t
from collections import deque
from collections.abc import Iterable
from collections.abc import Iterator

from ...errors import BrokerUnavailable
from ...message import Message
from .ack_barrier import await_settled
from .amqp import frames
from .amqp.transport import is_timeout
from .depth import depth
from .incoming import arrived
from .incoming import delivered

#: Messages that each consumer is sent; 65,535 is the most that AMQP can say.
_SIZES = (100, 1_000, 10_000, 65_535)

#: Messages that are given back at once. Quorum queues of RabbitMQ 3.10 keep the order
#: of up to 32; classic ones keep any, and sort the whole queue each time.
_TOGETHER = {"quorum": 32, "classic": 1_000_000_000}

#: Settlements between two barriers: RabbitMQ's channel hands 32 at once to a quorum
#: queue, and makes one of those that it keeps, in another order.
_BETWEEN_BARRIERS = 30

#: Seconds without a message after which to ask whether any is left: some may have
#: expired since they were counted.
_SILENCE = 3.0
#: Seconds after which the broker is given up.
_LONGEST_SILENCE = 30.0


class Taken(t.NamedTuple):
    """A message that the browser keeps."""

    tag: int
    message: Message


class Browser:
    """Looks at the messages of one queue, over a channel that nobody else uses.

    :param type: ``"quorum"`` or ``"classic"``.
    :param shown_as: The queue that the messages say they are of.
    """

    def __init__(self, channel: t.Any, queue: str, type: str, shown_as: str) -> None:
        self._channel = channel
        self._connection = channel.connection
        self._queue = queue
        self._together = _TOGETHER[type]
        self._shown_as = shown_as
        self._arrived: deque[Taken] = deque()
        #: Tags that are neither removed nor given back, in the order of arrival.
        self._kept: dict[int, None] = {}
        self._consumers: list[str] = []
        #: How many more messages the consumers may be sent.
        self._credit = 0
        self._last_arrival = 0.0
        channel.on_delivered = self._on_delivered

    def __iter__(self) -> Iterator[Taken]:
        """As many as the queue has now, the oldest first.

        Those that come meanwhile are not waited for: the loop would never end where a
        replayed message fails at once.
        """
        number = depth(self._channel, self._queue)
        self._last_arrival = time.monotonic()
        for _ in range(number):
            if not self._await_one():
                return
            yield self._arrived.popleft()

    def remove(self, tags: Iterable[int]) -> None:
        """Remove messages for good; returns when that is on the broker's disk."""
        for tag in tags:
            self._channel.basic_ack(tag)
            del self._kept[tag]
            self._credit += 1
        await_settled(self._channel, self._queue)

    def give_back(self) -> None:
        """Give back all that is kept, each to its place."""
        if not (self._consumers and self._connection.connected):
            return
        for consumer in self._consumers:
            self._channel.basic_cancel(consumer)
        tags = list(self._kept)
        lasts = dict.fromkeys([*tags[self._together - 1 :: self._together], *tags[-1:]])
        for some in _batches(list(lasts)):
            self._requeue(some)
        self._consumers.clear()
        self._kept.clear()

    def _requeue(self, lasts: Iterable[int]) -> None:
        number = self._channel.channel_id
        self._connection.write(
            b"".join(frames.requeue(number, tag, multiple=True) for tag in lasts)
        )
        await_settled(self._channel, self._queue)

    def _await_one(self) -> bool:
        """Wait for a message; whether there is one."""
        while not self._arrived:
            if self._credit <= 0:
                self._consume()
            silent_for = time.monotonic() - self._last_arrival
            if silent_for > _LONGEST_SILENCE:
                raise BrokerUnavailable(
                    f"RabbitMQ has sent none of the messages of '{self._queue}' for"
                    f" {silent_for:.0f} s, although some wait. Try again."
                )
            if silent_for > _SILENCE and not depth(self._channel, self._queue):
                return False
            self._read()
        return True

    def _consume(self) -> None:
        size = _SIZES[min(len(self._consumers), len(_SIZES) - 1)]
        consumer = f"qconsume.browser.{len(self._consumers)}"
        self._consumers.append(consumer)
        self._credit += size
        self._channel.basic_qos(0, size, False)
        self._channel.basic_consume(self._queue, consumer, callback=self._on_message)

    def _read(self) -> None:
        timeout = self._connection.sock.gettimeout()
        self._connection.sock.settimeout(_SILENCE)
        try:
            self._connection.read_available()
        except TimeoutError as error:
            if not is_timeout(error):
                raise
        finally:
            self._connection.sock.settimeout(timeout)

    def _on_delivered(self, delivery: frames.BasicDeliver) -> None:
        self._take(delivery.tag, delivered(delivery, self._shown_as))

    def _on_message(self, content: frames.Content) -> None:
        tag = content.delivery_info["delivery_tag"]
        self._take(tag, arrived(content, self._shown_as))

    def _take(self, tag: int, message: Message) -> None:
        self._kept[tag] = None
        self._credit -= 1
        self._arrived.append(Taken(tag, message))
        self._last_arrival = time.monotonic()


def _batches(tags: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(tags), _BETWEEN_BARRIERS):
        yield tags[start : start + _BETWEEN_BARRIERS]
