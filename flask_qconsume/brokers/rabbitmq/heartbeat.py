"""Whether a connection lives: heartbeats out, and a judgement on what comes in."""

from __future__ import annotations

import array
import fcntl
import termios

from ...errors import BrokerUnavailable
from .amqp.transport import Connection

#: Beats per negotiated heartbeat interval.
_RATE = 2
#: The broker is given up after two intervals, as AMQP says.
_MISSED = 2 * _RATE


class Pulse:
    """The heartbeat of one connection.

    Silence is counted in beats, not in seconds: when a handler hogged the processor for
    a minute nobody beat, nobody read, and nothing is wrong with the connection.
    """

    def __init__(self, raw: Connection) -> None:
        self._raw = raw
        self._seen = -1
        self._silent = 0
        #: Seconds between two beats.
        self.interval = (raw.heartbeat or 60) / _RATE

    def beat(self) -> None:
        """Send a heartbeat, and look for signs of life.

        :raises BrokerUnavailable: if there were none for two intervals.
        """
        self._raw.send_heartbeat()
        seen = self._raw.bytes_recv
        alive = seen != self._seen or self._unread()
        self._seen = seen
        self._silent = 0 if alive else self._silent + 1
        if self._silent >= _MISSED:
            silent = self._silent * self.interval
            raise BrokerUnavailable(f"RabbitMQ was silent for {silent:g} s.")

    def _unread(self) -> bool:
        """Whether bytes wait in the socket for a reader that had no turn yet."""
        count = array.array("i", [0])
        fcntl.ioctl(self._raw.sock.fileno(), termios.FIONREAD, count)
        return count[0] > 0
