"""Heartbeats of a connection to RabbitMQ, and the detection of a silent broker."""

from __future__ import annotations

import array
import fcntl
import termios

from ...errors import BrokerUnavailable
from .amqp.transport import Connection

#: Heartbeats that are sent in each negotiated interval.
_BEATS_PER_INTERVAL = 2
#: By AMQP, a connection is lost after two intervals of silence.
_MAX_SILENT_BEATS = 2 * _BEATS_PER_INTERVAL
#: Seconds between heartbeats, if the broker has switched them off.
_DEFAULT_INTERVAL = 60


class Heartbeat:
    """Sends the heartbeats of one connection, and notices a broker that is silent.

    The broker's silence is counted in calls of :meth:`beat`, not in seconds: while a
    handler keeps the processor busy for a minute, this process sends no heartbeats and
    reads nothing, and the connection may still be intact.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last_count = -1
        self._silent_beats = 0
        #: Seconds between two beats.
        self.interval = (
            connection.heartbeat or _DEFAULT_INTERVAL
        ) / _BEATS_PER_INTERVAL

    def beat(self) -> None:
        """Send a heartbeat, and check that the broker has sent something.

        :raises BrokerUnavailable: if the broker was silent for two intervals.
        """
        self._connection.send_heartbeat()
        count = self._connection.bytes_recv
        is_alive = count != self._last_count or self._has_unread_bytes()
        self._last_count = count
        self._silent_beats = 0 if is_alive else self._silent_beats + 1
        if self._silent_beats >= _MAX_SILENT_BEATS:
            seconds = self._silent_beats * self.interval
            raise BrokerUnavailable(f"RabbitMQ was silent for {seconds:g} s.")

    def _has_unread_bytes(self) -> bool:
        """Return whether the socket holds bytes that its reader has not read yet."""
        count = array.array("i", [0])
        fcntl.ioctl(self._connection.sock.fileno(), termios.FIONREAD, count)
        return count[0] > 0
