"""A TCP proxy that stands between us and a broker, and spoils what flows.

Its work is done by a process of its own, see `proxy_process`. Of what the registries
have, nothing kept can do all of it: Toxiproxy knows neither a window that closes nor a
cut within a frame, and is a program of another language.
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
#: Both directions: from us to the broker, and back.
BOTH = (UP, DOWN)

_ROOT = pathlib.Path(__file__).parents[2]


class Proxy:
    """Relays :attr:`port` to a port of a broker; what is told to it happens at once.

    A method returns when it has happened. :meth:`mend` ends every fault; but what was
    swallowed stays lost, and those connections dead.
    """

    def __init__(self, target: int, port: int = 0) -> None:
        self.port = port or free_port()
        self._target = target
        self._turn = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def cut(
        self, *, reset: bool, share: float = 1.0, chance: random.Random | None = None
    ) -> None:
        """End connections: by RST or FIN, all or a share of them."""
        self._tell("cut", reset=reset, share=share, seed=_seed(chance))

    def swallow(
        self,
        ways: t.Sequence[str] = BOTH,
        share: float = 1.0,
        chance: random.Random | None = None,
    ) -> None:
        """Make connections half-open: what is sent on them is lost, closing too."""
        self._tell("swallow", ways=list(ways), share=share, seed=_seed(chance))

    def break_frames(self, way: str, *, reset: bool) -> None:
        """Cut each connection in the middle of what flows on it next."""
        self._tell("break_frames", way=way, reset=reset)

    def stall(self, ways: t.Sequence[str] = BOTH) -> None:
        """Read no more, so that the receive window closes."""
        self._tell("stall", ways=list(ways))

    def delay(self, seconds: float, ways: t.Sequence[str] = BOTH) -> None:
        """Hold each piece back for so long."""
        self._tell("delay", ways=list(ways), seconds=seconds)

    def throttle(self, rate: int, ways: t.Sequence[str] = BOTH) -> None:
        """Let so many bytes a second through, on each connection."""
        self._tell("throttle", ways=list(ways), rate=rate)

    def refuse(self) -> None:
        """Refuse new connections; those that are there go on."""
        self._tell("refuse")

    def mend(self) -> None:
        """End every fault."""
        self._tell("mend")

    def state(self) -> dict[str, int]:
        """``clients``: connections that a client has open; of them ``dead``: those that
        were swallowed, and ``breaking``: those that will be cut within a frame."""
        return t.cast(dict[str, int], self._tell("state"))

    def start(self) -> None:
        """Listen, and relay."""
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

    def _tell(self, method: str, **arguments: t.Any) -> t.Any:
        process = self._process
        assert process is not None, "the proxy was not started"
        assert process.stdin is not None and process.stdout is not None
        with self._turn:
            process.stdin.write(json.dumps([method, arguments]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        assert answer, f"the proxy ended instead of doing this: {method}"
        return json.loads(answer)


def _seed(chance: random.Random | None) -> int:
    return chance.getrandbits(32) if chance is not None else 0
