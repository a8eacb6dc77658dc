"""Free ports on the loopback address, outside the range of outgoing connections.

A server that restarts must get its port again. A port of the ephemeral range may
belong to an outgoing connection by then, and a client that reconnects to such a port
may connect to itself.
"""

from __future__ import annotations

import pathlib
import random
import socket

HOST = "127.0.0.1"
_RANGE_FILE = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")
_handed_out: set[int] = set()


def free_port() -> int:
    """Return a free port that no other caller in this process was given."""
    candidates = range(10_000, _first_ephemeral())
    for port in random.sample(candidates, k=min(1_000, len(candidates))):
        if port not in _handed_out and _can_bind(port):
            _handed_out.add(port)
            return port
    raise OSError(f"no free port between {candidates.start} and {candidates.stop}")


def _first_ephemeral() -> int:
    try:
        first = int(_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_000
    return max(first, 11_000)


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
