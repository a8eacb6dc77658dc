"""Wake-ups between the processes that use one file."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from collections.abc import Collection

from ....background_thread import BackgroundThread
from ....errors import BrokerError
from ....first_use import ForkGuard
from ..database import Channel
from ..database import WakeReaders
from .process_socket import PeerSockets
from .process_socket import ProcessSocket

#: Seconds between two datagrams to the same process, at least. 10,000 publishes a
#: second would otherwise send 10,000 datagrams.
_MIN_INTERVAL_SECONDS = 0.003
#: Bytes of a datagram. A datagram of one line break stands for longer lists of names,
#: and means all queues.
_MAX_BYTES_PER_DATAGRAM = 8_192
_CLOSE_TIMEOUT_SECONDS = 3.0

#: Function that returns the processes that consume one of these queues.
FindReaders = Callable[[Collection[str]], Collection[str]]


class WakeSender:
    """Sends the names of queues to processes, at most once in 3 ms."""

    def __init__(self, peers: PeerSockets, find_readers: FindReaders) -> None:
        self._peers = peers
        self._find_readers = find_readers
        self._lock = threading.Lock()
        self._queues: set[str] = set()
        self._next_time = 0.0
        self._is_waiting = False

    def send(self, queues: Collection[str]) -> None:
        """Send the names now, or in 3 ms together with names added meanwhile."""
        with self._lock:
            self._queues.update(queues)
            is_early = time.monotonic() < self._next_time
            begins_to_wait = is_early and not self._is_waiting
            self._is_waiting = self._is_waiting or is_early
        if not is_early:
            self.flush()
        elif begins_to_wait:
            # The interpreter may be about to end.
            with contextlib.suppress(RuntimeError):
                BackgroundThread(self._wait_and_flush).start()

    def flush(self) -> None:
        """Send the collected names."""
        with self._lock:
            queues, self._queues = self._queues, set()
            self._next_time = time.monotonic() + _MIN_INTERVAL_SECONDS
        if not queues:
            return
        # Without a wake-up, readers find the messages by their next look.
        with contextlib.suppress(BrokerError):
            readers = self._find_readers(queues)
            if readers:
                self._peers.send(_encode(queues), readers)

    def _wait_and_flush(self) -> None:
        time.sleep(_MIN_INTERVAL_SECONDS)
        with self._lock:
            self._is_waiting = False
        self.flush()


class WakeReceiver:
    """Receives wake-ups in a thread, or in a greenlet."""

    def __init__(self, own: ProcessSocket, wake_readers: WakeReaders) -> None:
        self._own = own
        self._wake_readers = wake_readers
        self._guard = ForkGuard()
        self._closed = False
        self._thread = BackgroundThread(self._run)
        self._thread.start()

    def close(self) -> None:
        """Stop receiving."""
        self._closed = True
        self._own.wake()
        self._thread.join(_CLOSE_TIMEOUT_SECONDS)

    def _run(self) -> None:
        with self._own.open_receiver() as receiver, contextlib.suppress(OSError):
            while not self._closed:
                self._receive(receiver)

    def _receive(self, receiver: socket.socket) -> None:
        data = receiver.recv(_MAX_BYTES_PER_DATAGRAM)
        self._guard.block_if_forked()
        if data:
            self._wake_readers(_decode(data))


class WakeChannel(Channel):
    """Announces by wake-ups, and finds other changes by the number of the last change.

    :param find_socket: Returns the socket of this process, once it consumes.
    :param has_changed: Returns whether the file has changed since the last call.
    """

    #: Other programs insert messages without a wake-up.
    poll_interval = 0.05

    def __init__(
        self,
        sender: WakeSender,
        find_socket: Callable[[], ProcessSocket | None],
        has_changed: Callable[[], bool],
        wake_readers: WakeReaders,
    ) -> None:
        self._sender = sender
        self._find_socket = find_socket
        self._has_changed = has_changed
        self._wake_readers = wake_readers
        self.receiver: WakeReceiver | None = None

    def announce(self, queues: Collection[str]) -> None:
        self._sender.send(queues)

    def has_changes(self) -> bool:
        if self.receiver is None and (own := self._find_socket()) is not None:
            self.receiver = WakeReceiver(own, self._wake_readers)
        return self._has_changed()

    def close(self) -> None:
        self._sender.flush()
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.close()


def _encode(queues: Collection[str]) -> bytes:
    data = "\n".join(queues).encode("utf-8", "surrogateescape")
    return data if len(data) <= _MAX_BYTES_PER_DATAGRAM else b"\n"


def _decode(data: bytes) -> Collection[str] | None:
    if data == b"\n":
        return None
    return data.decode("utf-8", "surrogateescape").split("\n")
