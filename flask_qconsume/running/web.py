"""The app's web server beside its consumers, in one process."""

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
from .sockets import url_of

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

logger = get_logger("flask_qconsume.web")

#: Has one line for each request.
access_logger = get_logger("flask_qconsume.access")

#: Seconds that a connection just made has at a stop, for its first request to arrive.
_FIRST_REQUEST = 1.0

#: How many connections that wait to be accepted are, at a stop.
_LAST_ACCEPTED = 1_000


class Web:
    """Serves an app on a listening socket until it is stopped.

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
                # Not a logger: its lines would come by it again, for handlers of
                # Flask's kind write there.
                "wsgi.errors": sys.stderr,
            },
        )
        self.url = url_of(listener)

    def start(self) -> None:
        """Accept requests, in the background."""
        self._server.start()
        logger.info("Serving on %s", self.url)

    def stop(self, timeout: float) -> bool:
        """Accept no more, and wait for the requests that are running.

        :returns: Whether all of them ended in time; the others are cut off.
        """
        deadline = time.monotonic() + timeout
        server = self._server
        server.accept_waiting()
        server.draining = True
        server.close()
        server.hang_up(fresh=False)
        if not server.pool.join(timeout=min(_FIRST_REQUEST, timeout)):
            server.hang_up(fresh=True)
        ended = bool(server.pool.join(timeout=max(0.0, deadline - time.monotonic())))
        if not ended:
            cut = pluralize(len(server.pool), "request")
            logger.warning("Cutting off %s at the deadline", cut)
            server.pool.kill(timeout=1.0)
        return ended


class _Server(WSGIServer):  # type: ignore[misc]
    """Knows which connections wait for a request."""

    #: Set at a stop: each connection ends with the request that it is at.
    draining = False

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle: set[_Handler] = set()

    def accept_waiting(self) -> None:
        """Accept what waits already: closing the listener would reset it."""
        for _ in range(0 if self.closed else _LAST_ACCEPTED):
            accepted = self.do_read()
            if accepted is None:
                return
            self.do_handle(*accepted)

    def hang_up(self, *, fresh: bool) -> None:
        """End the connections that wait for a request.

        :param fresh: Those too whose first one has not arrived yet.
        """
        for handler in list(self.idle):
            if fresh or not handler.fresh:
                handler.hang_up()


class _Handler(WSGIHandler):  # type: ignore[misc]
    """One connection, which can be asked to end between two requests."""

    #: Until its first request.
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
        """One line as web servers have it; the log puts the time before it."""
        status = (self._orig_status or self.status or "000").split()[0]
        took = (self.time_finish or time.time()) - self.time_start
        return (
            f'{_host(self.client_address)} "{escape(self.requestline)}" {status}'
            f" {self.response_length or '-'} {took:.3f} s"
        )

    def log_error(self, msg: str, *args: t.Any) -> None:
        logger.error("%s", escape(msg % args if args else msg))

    def hang_up(self) -> None:
        """Read no further than what has arrived: a request in there is answered."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RD)

    def finalize_headers(self) -> None:
        super().finalize_headers()
        if self.server.draining and not self.connection_upgraded:
            self.close_connection = True
            names = {name.lower() for name, _ in self.response_headers}
            if b"connection" not in names:
                self.response_headers.append((b"Connection", b"close"))


def _host(client: t.Any) -> str:
    """The client's address; a Unix socket's has none."""
    return client[0] if isinstance(client, tuple) else "-"
