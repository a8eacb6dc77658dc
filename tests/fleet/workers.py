"""Start, stop and kill worker processes of the app under test."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import typing as t

from ..waiting import wait_for
from .clock import Clock
from .ledger import LEDGER
from .ledger import Ledger

APP = "tests.fleet.app:create_app"


class Fleet:
    """Worker processes, their output and their ledger."""

    def __init__(self, folder: pathlib.Path, config: dict[str, t.Any]) -> None:
        self.config = config
        self.ledger = Ledger(folder / "ledger")
        self._folder = folder
        self._started = 0
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(
        self, *arguments: str, ready: bool = True, clock: Clock | None = None
    ) -> subprocess.Popen[bytes]:
        """Start ``flask qconsume run``, and wait until it consumes."""
        command = [sys.executable, "-m", "flask", "--app", APP, "qconsume", "run"]
        sign = "consuming the queue" if ready else ""
        return self.spawn([*command, *arguments], sign, clock)

    def spawn(
        self, command: list[str], sign: str = "", clock: Clock | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process, and wait until its output has the sign of readiness."""
        self._started += 1
        path = self._folder / f"worker-{self._started}.log"
        with path.open("wb") as output:
            env = self.environment() | (clock.environment() if clock else {})
            worker = subprocess.Popen(command, env=env, stdout=output, stderr=output)
        worker.output = path  # type: ignore[attr-defined]
        self.workers.append(worker)
        if sign:
            wait_for(
                lambda: sign in path.read_text() or worker.poll() is not None,
                timeout=90,
                message=lambda: path.read_text()[-2000:],
            )
        return worker

    def clock(self) -> Clock:
        """Make a clock for the next process."""
        return Clock(self._folder / f"clock-{self._started + 1}")

    def environment(self) -> dict[str, str]:
        """Return the processes' environment: configuration, and the ledger's path."""
        config = {
            f"FLASK_QCONSUME_{key}": value
            if isinstance(value, str)
            else json.dumps(value)
            for key, value in self.config.items()
        }
        return {**os.environ, **config, LEDGER: str(self.ledger.path)}

    def term(self, worker: subprocess.Popen[bytes], timeout: float = 40) -> int:
        """Stop a worker by SIGTERM, and return its exit code."""
        worker.send_signal(signal.SIGTERM)
        return worker.wait(timeout)

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """Kill a worker by SIGKILL."""
        worker.kill()
        worker.wait(20)

    def close(self) -> None:
        """Kill all running processes."""
        for worker in self.workers:
            if worker.poll() is None:
                self.kill(worker)

    def logs(self) -> str:
        """Return the output of all processes."""
        return "\n".join(
            p.read_text(errors="replace") for p in sorted(self._folder.glob("*.log"))
        )
