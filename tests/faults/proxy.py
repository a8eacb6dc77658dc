"""A TCP proxy between clients and a broker, which provokes network failures.

A process of its own relays the bytes, see `proxy_process`. Existing proxies cannot do
all of it: Toxiproxy can neither close a receive window nor cut within a frame.
"""

from __future__ import annotations

import json
import pathlib
import random
import subprocess
import sys
import threading
import typing as t

from ..servers.ports import HOST
from ..servers.ports import free_port
from ..waiting import wait_for

UP, DOWN = "up", "down"
#: Both directions: from the client to the broker, and back.
BOTH = (UP, DOWN)

_ROOT = pathlib.Path(__file__).parents[2]


class Proxy:
    """Relay of :attr:`port` to a broker's port, with methods that provoke failures.

    Each method returns when the failure is in effect. :meth:`mend` ends every failure;
    but swallowed bytes stay lost, and their connections stay dead.
    """

    def __init__(self, target: int, port: int = 0) -> None:
        self.port = port or free_port()
        self._target = target
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def cut(
        self, *, reset: bool, share: float = 1.0, chance: random.Random | None = None
    ) -> None:
        """End connections: by RST or FIN, all or a share of them."""
        self._send("cut", reset=reset, share=share, seed=_draw_seed(chance))

    def swallow(
        self,
        ways: t.Sequence[str] = BOTH,
        share: float = 1.0,
        chance: random.Random | None = None,
    ) -> None:
        """Make connections half-open: bytes on them are lost, and so is their end."""
        self._send("swallow", ways=list(ways), share=share, seed=_draw_seed(chance))

    def break_frames(self, way: str, *, reset: bool) -> None:
        """Cut each connection within the next bytes on it."""
        self._send("break_frames", way=way, reset=reset)

    def stall(self, ways: t.Sequence[str] = BOTH) -> None:
        """Stop reading, so that the receive window closes."""
        self._send("stall", ways=list(ways))

    def delay(self, seconds: float, ways: t.Sequence[str] = BOTH) -> None:
        """Delay all bytes by these seconds."""
        self._send("delay", ways=list(ways), seconds=seconds)

    def throttle(self, rate: int, ways: t.Sequence[str] = BOTH) -> None:
        """Let ``rate`` bytes per second through on each connection."""
        self._send("throttle", ways=list(ways), rate=rate)

    def refuse(self) -> None:
        """Refuse new connections; open ones stay."""
        self._send("refuse")

    def mend(self) -> None:
        """End every failure."""
        self._send("mend")

    def state(self) -> dict[str, int]:
        """Return numbers of open connections.

        ``clients``: all; ``dead``: those whose bytes are swallowed; ``breaking``: those
        that will be cut within a frame.
        """
        return t.cast(dict[str, int], self._send("state"))

    def start(self) -> None:
        """Start to listen and relay."""
        command = [sys.executable, "-m", "tests.faults.proxy_process"]
        self._process = subprocess.Popen(
            [*command, str(self.port), str(self._target)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.mend()

    def close(self) -> None:
        """End the process, and all connections with it."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        wait_for(lambda: process.poll() is not None, 10, message="the proxy has ended")
        process.stdout.close()

    def __enter__(self) -> Proxy:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, method: str, **arguments: t.Any) -> t.Any:
        process = self._process
        assert process is not None, "the proxy was not started"
        assert process.stdin is not None and process.stdout is not None
        with self._lock:
            process.stdin.write(json.dumps([method, arguments]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        assert answer, f"the proxy ended instead of doing this: {method}"
        return json.loads(answer)


def _draw_seed(chance: random.Random | None) -> int:
    return chance.getrandbits(32) if chance is not None else 0
