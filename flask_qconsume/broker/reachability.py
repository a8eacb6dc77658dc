"""Whether an address accepts connections: the cheapest check of a broker."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

#: Seconds for which one address is tried.
_CONNECT_TIMEOUT_SECONDS = 1.0


def is_any_reachable(addresses: Iterable[tuple[str, int]]) -> bool:
    """Whether one of the addresses accepts a connection, which is closed at once."""
    for address in addresses:
        with contextlib.suppress(OSError):
            socket.create_connection(address, _CONNECT_TIMEOUT_SECONDS).close()
            return True
    return False
