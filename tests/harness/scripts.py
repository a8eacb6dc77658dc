"""Python code in a process of its own, with the import path of the tests."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import typing as t


def run_script(
    script: str, *options: str, timeout: float = 60.0, measured: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run Python code in a new interpreter and wait for its end.

    :param options: Command-line options of the interpreter.
    :param timeout: Seconds that it may take.
    :param measured: Whether coverage measures it. It must not measure several native
        threads: their ends are pending calls of greenlet, which call Python code of
        coverage's. If a second one comes meanwhile, Python 3.11 hangs while it traces.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if measured or not name.startswith("COVERAGE_")
    }
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, *options, "-c", script],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
    )


@contextlib.contextmanager
def running(command: t.Sequence[str]) -> t.Iterator[subprocess.Popen[str]]:
    """Run a program, and read its output, in a block; then wait for its end.

    If the block raises an error, the program is killed: its end could take for ever.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            yield program
        except BaseException:
            program.kill()
            raise
