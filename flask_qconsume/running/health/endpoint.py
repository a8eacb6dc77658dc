"""Answers ``/live`` and ``/ready`` over HTTP, even if gevent's event loop is blocked.

One native thread serves all clients, and waits for none of them: each connection gets
one second for one request, and time to read the answer. Must not import gevent: the
supervising process uses this module as well.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
import typing as t
from collections.abc import Callable

from ...logs import get_logger
from ...native_threads import Latch
from ...native_threads import NativeThread
from ...native_threads import get_unpatched
from ...native_threads import run_in_thread
from ..sockets import get_url
from .verdict import Verdict

logger = get_logger("flask_qconsume.checks")

#: Answers a scrape: takes the header ``Accept``, returns content type and body.
Scrape = Callable[[str], tuple[str, bytes]]

#: How many clients are served at once; a further client replaces the oldest.
_MAX_CLIENTS = 100

#: Seconds that a client has to send its request.
_CLIENT_SECONDS = 1.0

#: Seconds that a client has to read the answer. Metrics of 500 consumers are 3 MB, and
#: creating them may take a second.
_ANSWER_SECONDS = 10.0

#: The longest request that is read, in bytes.
_MAX_REQUEST_BYTES = 16_384

#: How many bytes of a request are read at a time.
_CHUNK_BYTES = 4_096

#: Seconds before the next client is accepted if no file descriptor is left.
_NO_DESCRIPTOR_SECONDS = 0.1

_JSON = "application/json"

_REASONS = {
    200: "OK",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def make_response(verdict: Verdict, path: str) -> tuple[int, str]:
    """Return the HTTP status and body for a path: ``/live``, ``/ready`` or unknown."""
    if path not in ("/live", "/ready"):
        return 404, '{"paths": ["/live", "/ready"]}'
    good = verdict.live if path == "/live" else verdict.ready
    return (200 if good else 503), verdict.to_json()


class Endpoint:
    """An HTTP server for health checks, which runs in a native thread.

    :param listener: The socket, which the caller cannot use afterwards.
    :param verdict: Returns the current verdict. Called for each request, in a native
        thread; must not wait.
    :param scrape: Answers ``/metrics``, in the same thread; ``None`` if there are no
        metrics.
    """

    def __init__(
        self,
        listener: socket.socket,
        verdict: Callable[[], Verdict],
        scrape: Scrape | None = None,
    ) -> None:
        self.url = get_url(listener)
        self._scrape = scrape
        self._verdict = verdict
        self._socket = _to_plain_socket(listener)
        self._poll = get_unpatched("select", "poll")()
        self._poll.register(self._socket, select.POLLIN)
        #: Clients by file descriptor, the oldest first.
        self._clients: dict[int, _Client] = {}
        self._over = Latch()
        self._thread = NativeThread(self._serve, "health")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._over.open()
        # A shutdown ends the thread's wait; closing the descriptor would not.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(2 * _CLIENT_SECONDS)
        self._socket.close()

    def _serve(self) -> None:
        while not self._over.is_open:
            for descriptor, _ in self._poll.poll(self._compute_poll_timeout()):
                if descriptor == self._socket.fileno():
                    self._accept()
                elif (client := self._clients.get(descriptor)) is not None:
                    self._serve_client(client)
            now = time.monotonic()
            for client in [c for c in self._clients.values() if c.deadline <= now]:
                self._drop(client)
        for client in list(self._clients.values()):
            self._drop(client)

    def _compute_poll_timeout(self) -> float | None:
        if not self._clients:
            return None
        first = min(client.deadline for client in self._clients.values())
        return max(0.0, first - time.monotonic()) * 1000 + 1

    def _accept(self) -> None:
        if len(self._clients) >= _MAX_CLIENTS:
            self._drop(next(iter(self._clients.values())))
        try:
            connection, _ = self._socket.accept()
        except BlockingIOError:
            return
        except OSError:
            self._over.wait(_NO_DESCRIPTOR_SECONDS)
            return
        client = _Client(connection)
        self._clients[client.descriptor] = client
        self._poll.register(client.descriptor, select.POLLIN)

    def _serve_client(self, client: _Client) -> None:
        try:
            if client.answer:
                client.send()
            elif (request := client.read_request()) is not None:
                client.begin_answer(self._answer(request))
                client.send()
                self._poll.modify(client.descriptor, select.POLLOUT)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
        else:
            if client.is_done:
                self._drop(client)

    def _answer(self, request: str) -> bytes:
        line, _, head = request.partition("\r\n")
        method, _, rest = line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        kind, body = _JSON, b""
        if method not in ("GET", "HEAD"):
            status = 405
        elif path == "/metrics" and self._scrape is not None:
            status, kind, body = _run_scrape(self._scrape, _find_accept(head))
        else:
            status, text = make_response(self._verdict(), path)
            body = text.encode()
        return _write_response(status, kind, body, with_body=method != "HEAD")

    def _drop(self, client: _Client) -> None:
        del self._clients[client.descriptor]
        self._poll.unregister(client.descriptor)
        client.close()


class _Client:
    """One connection: the part of the request that has arrived, and the answer."""

    def __init__(self, connection: t.Any) -> None:
        connection.setblocking(False)
        self.descriptor: int = connection.fileno()
        self.deadline = time.monotonic() + _CLIENT_SECONDS
        #: The part of the answer that has not been sent yet.
        self.answer = b""
        self.is_done = False
        self._connection = connection
        self._request = b""

    def read_request(self) -> str | None:
        """Read from the connection; return a complete request's first line."""
        more = self._connection.recv(_CHUNK_BYTES)
        self._request += more
        whole = b"\r\n\r\n" in self._request or len(self._request) > _MAX_REQUEST_BYTES
        if more and not whole:
            return None
        return self._request.decode("latin-1")

    def begin_answer(self, answer: bytes) -> None:
        self.answer = answer
        self.deadline = time.monotonic() + _ANSWER_SECONDS

    def send(self) -> None:
        self.answer = self.answer[self._connection.send(self.answer) :]
        self.is_done = not self.answer

    def close(self) -> None:
        self._connection.close()


def _run_scrape(scrape: Scrape, accept: str) -> tuple[int, str, bytes]:
    try:
        return 200, *scrape(accept)
    except Exception as error:
        run_in_thread("metrics", _log_failure, error)
        return 500, _JSON, b""


def _log_failure(error: Exception) -> None:
    logger.error("The metrics cannot be shown.", exc_info=error)


def _find_accept(head: str) -> str:
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "accept":
            return value
    return ""


def _write_response(status: int, kind: str, body: bytes, *, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        f"Content-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")


def _to_plain_socket(listener: socket.socket) -> t.Any:
    kind = get_unpatched("socket", "socket")
    plain = kind(listener.family, listener.type, listener.proto, listener.detach())
    plain.setblocking(False)
    return plain
