"""Runners of `flask qconsume`, in processes of their own and in this one."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import typing as t
import urllib.request

from click.testing import Result
from flask import Flask

from flask_qconsume.cli import cli

from ..waiting import wait_for

FLASK = (sys.executable, "-m", "flask", "--app", "shop:create_app")


def invoke(app: Flask, *args: str, **options: t.Any) -> Result:
    """Run a command in this process, and return its exit code and output."""
    return app.test_cli_runner().invoke(cli, args, **options)


class Commands:
    """Runner of `flask qconsume …` on the app of one folder."""

    def __init__(self, folder: pathlib.Path, config: t.Mapping[str, t.Any]) -> None:
        self.folder = folder
        self.config = dict(config)
        self._started = 0

    def environment(self) -> dict[str, str]:
        config = {
            f"FLASK_QCONSUME_{key}": value
            if isinstance(value, str)
            else json.dumps(value)
            for key, value in self.config.items()
        }
        return {**os.environ, **config}

    def run(
        self, *args: str, command: t.Sequence[str] = FLASK, input: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [*command, "qconsume", *args],
            cwd=self.folder,
            env=self.environment(),
            input=input,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def start(self, *args: str, command: t.Sequence[str] = FLASK) -> Running:
        """Start a command that runs until it is stopped; a context manager ends it."""
        return self.spawn([*command, "qconsume", *args])

    def spawn(self, command: t.Sequence[str]) -> Running:
        """Start any command in the folder."""
        self._started += 1
        output = self.folder / f"output-{self._started}.log"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        return Running(process, output)


class Running:
    """A running command, with its output so far."""

    def __init__(self, process: subprocess.Popen[bytes], output: pathlib.Path) -> None:
        self.process = process
        self._output = output

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def wait_for(self, text: str, times: int = 1, timeout: float = 40.0) -> None:
        """Wait for a number of occurrences of a text in the output.

        The test fails if the command ends before.
        """
        wait_for(
            lambda: self.output.count(text) >= times or self.process.poll() is not None,
            timeout,
            message=lambda: f"{text!r} is printed; there is:\n{self.output}",
        )
        assert self.output.count(text) >= times, self.output

    def send(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.send(number)
        return self.wait()

    def wait(self, timeout: float = 40.0) -> int:
        return self.process.wait(timeout)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


def get(url: str) -> t.Any:
    """Return the JSON at a URL."""
    with urllib.request.urlopen(url, timeout=20) as response:
        return json.load(response)
