"""Opens listening sockets. Must not import gevent.

The supervising process, which gevent has not patched, opens the socket that its
children share.
"""

from __future__ import annotations

import socket

from ..errors import WorkerError
from ..text import escape
from ..text import quote

#: How many connections may wait to be accepted.
_BACKLOG = 1024

#: Characters that only IPv6 addresses have.
_IPV6_CHARACTERS = frozenset("[]:")


def listen(address: str) -> socket.socket:
    """Open a listening socket for an address such as ``127.0.0.1:5000``.

    :raises WorkerError: if the address is malformed or in use.
    """
    host, _, port = address.rpartition(":")
    try:
        family, host = _parse_host(host)
        place = (host, _parse_port(port))
        return socket.create_server(place, family=family, backlog=_BACKLOG)
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"Cannot listen on {quote(address)} ({escape(error)}). Give HOST:PORT"
            " of this machine that is not in use, such as 127.0.0.1:5000 or [::1]:5000."
        ) from error


def _parse_host(text: str) -> tuple[socket.AddressFamily, str]:
    if text.startswith("[") and text.endswith("]"):
        return socket.AF_INET6, text[1:-1]
    if not _IPV6_CHARACTERS.isdisjoint(text):
        raise ValueError("an address of IPv6 needs brackets")
    text.encode("idna")  # The socket would raise a TypeError, and stay open.
    return socket.AF_INET, text or "127.0.0.1"


def _parse_port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text[:6]) > 65_535:
        raise ValueError("ports are numbers up to 65535")
    return int(text)


def get_url(listener: socket.socket) -> str:
    """Return the URL under which a browser reaches a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
