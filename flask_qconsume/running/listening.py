"""Sockets to listen on, made or taken over. Must not import gevent.

A process that only supervises others opens the socket which all of them share.
"""

from __future__ import annotations

import socket

from ..errors import WorkerError

_BACKLOG = 1024


def listen(address: str) -> socket.socket:
    """A listening socket for ``HOST:PORT``.

    :raises WorkerError: if the address makes no sense or is taken.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        place = (host, _port(port))
        return socket.create_server(place, family=family, backlog=_BACKLOG)
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"Cannot listen on '{address}' ({error}). Give HOST:PORT of this machine"
            " that nobody uses, such as 127.0.0.1:5000."
        ) from error


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65_535:
        raise ValueError("ports are numbers up to 65535")
    return number


def url_of(listener: socket.socket) -> str:
    """What to type into a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
