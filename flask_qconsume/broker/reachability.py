"""Whether anybody listens at an address: the cheapest look there is at a broker."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

#: Seconds for which one address is tried.
_LOOK = 1.0


def is_any_reachable(addresses: Iterable[tuple[str, int]]) -> bool:
    """Whether a connection is accepted at one of these; it is hung up at once."""
    for address in addresses:
        with contextlib.suppress(OSError):
            socket.create_connection(address, _LOOK).close()
            return True
    return False
