"""``/live`` and ``/ready`` over HTTP, answered while the hub is blocked.

A few threads of the operating system wait on one socket; each answers one request by
one connection. What they answer is at hand, so none of them waits for anything but the
client. Must not import gevent: the process that supervises others answers as well.
"""

from __future__ import annotations

import contextlib
import socket
import time
import typing as t
from collections.abc import Callable

from ..transports.native import Latch
from ..transports.native import NativeThread
from ..transports.native import original
from .health import Verdict
from .listening import url_of

#: How many clients are served at once.
_THREADS = 4

#: Seconds that a client has to ask.
_PATIENCE = 2.0

#: A request longer than that is none of ours.
_LONGEST = 16_384

_REASONS = {
    200: "OK",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


def answer(verdict: Verdict, path: str) -> tuple[int, str]:
    """The status and the body for ``/live`` or ``/ready``."""
    if path not in ("/live", "/ready"):
        return 404, '{"paths": ["/live", "/ready"]}'
    good = verdict.live if path == "/live" else verdict.ready
    return (200 if good else 503), verdict.to_json()


class Endpoint:
    """Answers on a listening socket until it is closed.

    :param listener: Its descriptor is taken over.
    :param verdict: Called for each request, in any thread; must not wait.
    """

    def __init__(self, listener: socket.socket, verdict: Callable[[], Verdict]) -> None:
        self.url = url_of(listener)
        self._verdict = verdict
        self._socket = _plain(listener)
        self._threads = [NativeThread(self._serve, "health") for _ in range(_THREADS)]
        self._over = Latch()

    def start(self) -> None:
        """Answer, in the background."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._over.open()
        # Ends 'accept' in all threads, which closing the descriptor would not.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(2 * _PATIENCE)
        self._socket.close()

    def _serve(self) -> None:
        while not self._over.is_open:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                self._over.wait(0.1)  # Too many open files, say.
                continue
            # A client that goes away is no concern of ours.
            with contextlib.suppress(OSError), connection:
                self._answer(connection)

    def _answer(self, connection: t.Any) -> None:
        line = _request_line(connection)
        method, _, rest = line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            status, body = 405, ""
        else:
            status, body = answer(self._verdict(), path)
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Cache-Control: no-store\r\n"
            "Connection: close\r\n\r\n"
        )
        connection.sendall((head + ("" if method == "HEAD" else body)).encode())


def _plain(listener: socket.socket) -> t.Any:
    """The socket as the operating system has it, which blocks a thread that waits."""
    kind = original("socket", "socket")
    plain = kind(listener.family, listener.type, listener.proto, listener.detach())
    plain.setblocking(True)
    return plain


def _request_line(connection: t.Any) -> str:
    """The first line of a request, once all of its head has come."""
    deadline = time.monotonic() + _PATIENCE
    data = b""
    while b"\r\n\r\n" not in data and len(data) < _LONGEST:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        more = connection.recv(4096)
        if not more:
            break
        data += more
    return data.partition(b"\r\n")[0].decode("latin-1")
