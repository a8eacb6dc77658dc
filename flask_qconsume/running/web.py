"""The app's web server beside its consumers, in one process."""

from __future__ import annotations

import logging
import socket
import typing as t

from gevent.pywsgi import WSGIServer

from ..errors import WorkerError

if t.TYPE_CHECKING:
    from flask import Flask

logger = logging.getLogger("flask_qconsume.web")


def listen(address: str) -> socket.socket:
    """A listening socket for ``HOST:PORT``.

    :raises WorkerError: if the address makes no sense or is taken.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, int(port)), family=family, backlog=1024)
    except (OSError, ValueError, OverflowError) as error:
        raise WorkerError(
            f"Cannot listen on '{address}' ({error}). Give HOST:PORT of this machine"
            " that nobody uses, such as 127.0.0.1:5000."
        ) from error


class Web:
    """Serves an app on a listening socket until it is stopped."""

    def __init__(self, app: Flask, listener: socket.socket) -> None:
        self._server = WSGIServer(listener, app, log=None, error_log=logger)
        self.url = _url(listener)

    def start(self) -> None:
        """Accept requests, in the background."""
        self._server.start()
        logger.info("Serving on %s", self.url)

    def stop(self, timeout: float) -> None:
        """Accept no more, and wait for the requests that are running."""
        self._server.stop(timeout=timeout)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
