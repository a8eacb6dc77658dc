"""Sockets to listen on, made or taken over. Must not import gevent.

A process that only supervises others opens the socket which all of them share.
"""

from __future__ import annotations

import socket

from ..errors import WorkerError
from ..text import escape
from ..text import quote

_BACKLOG = 1024

#: What only addresses of version 6 have.
_OF_VERSION_6 = frozenset("[]:")


def listen(address: str) -> socket.socket:
    """A listening socket for ``HOST:PORT``.

    :raises WorkerError: if the address makes no sense or is taken.
    """
    host, _, port = address.rpartition(":")
    try:
        family, host = _host(host)
        place = (host, _port(port))
        return socket.create_server(place, family=family, backlog=_BACKLOG)
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"Cannot listen on {quote(address)} ({escape(error)}). Give HOST:PORT"
            " of this machine that nobody uses, such as 127.0.0.1:5000 or [::1]:5000."
        ) from error


def _host(text: str) -> tuple[socket.AddressFamily, str]:
    if text.startswith("[") and text.endswith("]"):
        return socket.AF_INET6, text[1:-1]
    if not _OF_VERSION_6.isdisjoint(text):
        raise ValueError("an address of version 6 is in brackets")
    text.encode("idna")  # The socket would raise a TypeError, and stay open.
    return socket.AF_INET, text or "127.0.0.1"


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text[:6]) > 65_535:
        raise ValueError("ports are numbers up to 65535")
    return int(text)


def url_of(listener: socket.socket) -> str:
    """What to type into a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
