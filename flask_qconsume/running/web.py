"""Serves the app's web requests in the process that runs its consumers."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import time
import typing as t

from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler
from gevent.pywsgi import WSGIServer

from ..logs import get_logger
from ..text import escape
from ..text import pluralize
from .sockets import get_url

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

logger = get_logger("flask_qconsume.web")

#: Logger for one line per request.
access_logger = get_logger("flask_qconsume.access")

#: Seconds that a new connection gets at a stop for its first request to arrive.
_FIRST_REQUEST_SECONDS = 1.0

#: How many waiting connections are still accepted at a stop.
_MAX_LAST_ACCEPTED = 1_000


class WebServer:
    """A web server for the app, on a listening socket.

    :param shared: Whether other processes listen on the same socket.
    """

    def __init__(
        self, app: WSGIApplication, listener: socket.socket, *, shared: bool = False
    ) -> None:
        self._server = _Server(
            listener,
            app,
            log=access_logger,
            error_log=logger,
            spawn=Pool(),
            handler_class=_Handler,
            environ={
                "wsgi.multithread": True,
                "wsgi.multiprocess": shared,
                # Not a logger: Flask's own log handler writes here, so that each line
                # would be logged again.
                "wsgi.errors": sys.stderr,
            },
        )
        self.url = get_url(listener)

    def start(self) -> None:
        """Begin to accept requests, in the background."""
        self._server.start()
        logger.info("Serving on %s", self.url)

    def stop(self, timeout: float) -> bool:
        """Close the listening socket, and wait for the running requests.

        :returns: Whether all requests ended within ``timeout`` seconds; if not, the
            rest are cut off.
        """
        deadline = time.monotonic() + timeout
        server = self._server
        server.accept_waiting()
        server.draining = True
        server.close()
        server.hang_up(fresh=False)
        if not server.pool.join(timeout=min(_FIRST_REQUEST_SECONDS, timeout)):
            server.hang_up(fresh=True)
        ended = bool(server.pool.join(timeout=max(0.0, deadline - time.monotonic())))
        if not ended:
            cut = pluralize(len(server.pool), "request")
            logger.warning("Cutting off %s at the deadline", cut)
            server.pool.kill(timeout=1.0)
        return ended


class _Server(WSGIServer):  # type: ignore[misc]
    """A WSGI server that knows its idle connections, which wait for a request."""

    #: True once the server stops: each connection then ends after its current request.
    draining = False

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle: set[_Handler] = set()

    def accept_waiting(self) -> None:
        """Accept connections that the system has queued, which a close would reset."""
        for _ in range(0 if self.closed else _MAX_LAST_ACCEPTED):
            accepted = self.do_read()
            if accepted is None:
                return
            self.do_handle(*accepted)

    def hang_up(self, *, fresh: bool) -> None:
        """Close idle connections, which wait for a request.

        :param fresh: Whether to end connections that have not sent any request, too.
        """
        for handler in list(self.idle):
            if fresh or not handler.fresh:
                handler.hang_up()


class _Handler(WSGIHandler):  # type: ignore[misc]
    """One connection of the web server, which can be closed between two requests."""

    #: True until the connection's first request has arrived.
    fresh = True

    def read_requestline(self) -> t.Any:
        if self.server.draining and not self.fresh:
            self.hang_up()
        self.server.idle.add(self)
        try:
            return super().read_requestline()
        finally:
            self.server.idle.discard(self)
            self.fresh = False

    def log_request(self) -> None:
        if access_logger.isEnabledFor(logging.INFO):
            super().log_request()

    def format_request(self) -> str:
        """Return the access log's line for the request, without the time."""
        status = (self._orig_status or self.status or "000").split()[0]
        client = _describe_client(self.client_address)
        took = (self.time_finish or time.time()) - self.time_start
        return (
            f'{client} "{escape(self.requestline)}" {status}'
            f" {self.response_length or '-'} {took:.3f} s"
        )

    def log_error(self, msg: str, *args: t.Any) -> None:
        logger.error("%s", escape(msg % args if args else msg))

    def hang_up(self) -> None:
        """Close the connection, after answering a request that has already arrived."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RD)

    def finalize_headers(self) -> None:
        super().finalize_headers()
        if self.server.draining and not self.connection_upgraded:
            self.close_connection = True
            names = {name.lower() for name, _ in self.response_headers}
            if b"connection" not in names:
                self.response_headers.append((b"Connection", b"close"))


def _describe_client(client: t.Any) -> str:
    return client[0] if isinstance(client, tuple) else "-"
