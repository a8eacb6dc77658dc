"""One connection that publishes: one generation of sequence numbers and confirmations.

It is written to by the publisher's thread alone, and read by a thread of its own. It is
never reopened; what was in flight when it broke is published again on the next one.
"""

from __future__ import annotations

import threading
import time
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence

from amqp.exceptions import ChannelError

from ...broker.topology import Topology
from ...errors import BrokerError
from ...errors import PublishRefused
from ...errors import Unroutable
from ...settings import Settings
from ...text import quote
from .amqp import frames
from .amqp.transport import is_timeout
from .connection import hang_up
from .connection import open_connection
from .connection import opened
from .declare import Declaring
from .errors import LOST
from .errors import translate_error
from .forks import Origin
from .heartbeat import Pulse
from .pending_publish import Parcel
from .wakeup import Bell

_CLOSE_WAIT = 2.0

#: How many callers go on at once when much is confirmed at once.
_AT_ONCE = 20


class Session:
    """A connection in confirm mode.

    :param bell: The publisher's: its lock guards all that is written here, and it is
        rung when something happened.
    """

    def __init__(self, settings: Settings, bell: Bell) -> None:
        self._bell = bell
        self._lock = bell.lock
        self._sequence = 0
        #: Sent and not confirmed yet, by sequence number, in this order.
        self.in_flight: dict[int, Parcel] = {}
        #: Whether somebody waits for confirmations, to send more.
        self.awaited = False
        #: Whether the broker asked us to stop publishing.
        self.blocked = False
        #: Why it is over, once it is.
        self.lost: BaseException | None = None
        #: Names of wait queues that are known to be there.
        self.steps: set[str] = set()
        self._raw = open_connection(settings, "publisher")
        self._pulse = Pulse(self._raw)
        self._reader: threading.Thread | None = None
        self._origin = Origin()

    def start(self, topology: Topology, mode: str) -> None:
        """Declare the topology, enter confirm mode, begin to read.

        :raises BrokerError: if that fails; the session is of no use then.
        """
        try:
            self._channel = self._raw.channel()
            # Kept here: the reader tears both objects down when the connection is lost,
            # at any moment of our writing.
            self._number = self._channel.channel_id
            self._frame_max = self._raw.frame_max
            Declaring(self._channel, mode).topology(topology)
            self._listen()
            self._channel.confirm_select()
            opened(self._raw)
        except LOST as error:
            doing = "RabbitMQ: declaring before publishing failed"
            raise translate_error(error, doing) from error
        self._reader = threading.Thread(
            target=self._read, name="flask_qconsume confirmations", daemon=True
        )
        self._reader.start()

    def _listen(self) -> None:
        self._channel.events["basic_ack"].add(self._on_ack)
        self._channel.events["basic_nack"].add(self._on_nack)
        self._channel.events["basic_return"].add(self._on_return)
        self._raw.on_blocked = self._on_blocked
        self._raw.on_unblocked = self._on_unblocked

    @property
    def beat_interval(self) -> float:
        return self._pulse.interval

    def beat(self) -> None:
        """Send a heartbeat, and judge the broker's."""
        try:
            self._pulse.beat()
        except (BrokerError, *LOST) as error:
            self._lose(error)

    def send(self, parcels: Sequence[Parcel]) -> None:
        """Write them; what becomes of them is heard later."""
        written: list[bytes] = []
        with self._lock:
            for parcel in parcels:
                written.extend(self._accept(parcel))
        try:
            self._raw.write(b"".join(written))
        except LOST as error:
            self._lose(error)

    def _accept(self, parcel: Parcel) -> list[bytes]:
        """Give it its number; frames must be written in the order of the numbers."""
        try:
            written = parcel.frames(self._number, self._frame_max)
        except PublishRefused as error:
            parcel.finish(error)
            return []
        self._sequence += 1
        self.in_flight[self._sequence] = parcel
        return written

    def _read(self) -> None:
        try:
            while True:
                self._read_once()
        except BaseException as error:
            self._origin.stay_away()
            self._lose(error)

    def _read_once(self) -> None:
        try:
            self._raw.read_available()
        except TimeoutError as error:
            if not is_timeout(error):
                raise

    def _lose(self, error: BaseException) -> None:
        with self._lock:
            self.lost = self.lost or error
            self._bell.ring()

    def _on_ack(self, tag: int, multiple: bool) -> None:
        with self._lock:
            confirmed = iter(self._confirmed(tag, multiple))
        while self._settle_some(confirmed):
            # These publish their next ones now. If all did before any of that is
            # written, the broker would have nothing to do meanwhile.
            time.sleep(0)

    def _settle_some(self, parcels: Iterator[Parcel]) -> bool:
        """Settle parcels; whether enough callers go on, and there may be more."""
        going_on = 0
        with self._lock:
            for parcel in parcels:
                going_on += self._settle(parcel)
                if going_on == _AT_ONCE:
                    break
            self._told()
        return going_on == _AT_ONCE

    def _told(self) -> None:
        # Where nobody waits for it, each of many confirmations would wake somebody up.
        if self.awaited or self.lost is not None:
            self._bell.ring()

    def _settle(self, parcel: Parcel) -> bool:
        unroutable = parcel.problem is not None and not parcel.done
        if not (unroutable and parcel.ours and parcel.once_more()):
            return parcel.finish(parcel.problem)
        # Somebody deleted a queue of ours. The next session declares it again.
        self.lost = self.lost or parcel.problem
        parcel.problem = None
        self._sequence += 1
        self.in_flight[self._sequence] = parcel
        return False

    def _on_nack(self, tag: int, multiple: bool) -> None:
        with self._lock:
            for parcel in self._confirmed(tag, multiple):
                parcel.finish(
                    PublishRefused(
                        f"RabbitMQ refused a message to {quote(parcel.routing_key)}:"
                        " a queue that it goes to is full, or has lost most of its"
                        " nodes."
                    )
                )
            self._told()

    def _confirmed(self, tag: int, multiple: bool) -> list[Parcel]:
        if not multiple:
            parcel = self.in_flight.pop(tag, None)
            return [] if parcel is None else [parcel]
        numbers: list[int] = []
        for number in self.in_flight:
            if number > tag:
                break
            numbers.append(number)
        return [self.in_flight.pop(number) for number in numbers]

    def _on_return(
        self, error: t.Any, exchange: str, routing_key: str, content: frames.Content
    ) -> None:
        # The broker returns messages in the order of their publishing and confirms them
        # afterwards. It does not say the number; of equal ones, the first is as good.
        with self._lock:
            for parcel in self.in_flight.values():
                if parcel.is_returned_as(exchange, routing_key, content):
                    parcel.problem = Unroutable(_nobody(exchange, routing_key))
                    return

    def _on_blocked(self, reason: str) -> None:
        with self._lock:
            self.blocked = True

    def _on_unblocked(self) -> None:
        with self._lock:
            self.blocked = False
            self._bell.ring()

    @property
    def broke_the_channel(self) -> bool:
        """Whether the broker closed the channel because of something we published."""
        return isinstance(self.lost, ChannelError)

    def close(self) -> None:
        """Say goodbye, if there is anybody to say it to, and free everything."""
        reader = self._reader
        if reader is not None and self.lost is None:
            self._part()
            reader.join(_CLOSE_WAIT)
        hang_up(self._raw)
        if reader is not None:
            reader.join(_CLOSE_WAIT)

    def _part(self) -> None:
        try:
            self._raw.write(frames.close_connection())
        except LOST as error:
            self._lose(error)


def _nobody(exchange: str, routing_key: str) -> str:
    if not exchange:
        return (
            f"RabbitMQ has no queue {quote(routing_key)}, so nobody would get the"
            " message."
        )
    return (
        f"No queue is bound to the exchange {quote(exchange)} for the routing key"
        f" {quote(routing_key)}, so nobody would get the message. Is its consumer"
        " declared yet ('flask qconsume declare')? Publish with 'mandatory=False' if"
        " nobody has to get it."
    )
