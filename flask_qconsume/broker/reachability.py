"""The cheapest check of a broker: does its address accept connections?"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

#: Seconds for which one address is tried.
_CONNECT_TIMEOUT_SECONDS = 1.0


def is_any_reachable(addresses: Iterable[tuple[str, int]]) -> bool:
    """Return whether any of the addresses accepts a connection."""
    for address in addresses:
        with contextlib.suppress(OSError):
            socket.create_connection(address, _CONNECT_TIMEOUT_SECONDS).close()
            return True
    return False
