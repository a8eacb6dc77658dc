"""Python code in a process of its own, with the import path of the tests."""

from __future__ import annotations

import os
import subprocess
import sys


def run_script(
    script: str, *options: str, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run Python code in a new interpreter and wait for its end.

    :param options: Command-line options of the interpreter.
    :param timeout: Seconds that it may take.
    """
    return subprocess.run(
        [sys.executable, *options, "-c", script],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
