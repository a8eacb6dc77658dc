"""Scripts in a process of their own, which imports what the tests do."""

from __future__ import annotations

import os
import subprocess
import sys


def run_script(
    script: str, *options: str, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh interpreter, to its end.

    :param options: The interpreter's own.
    """
    return subprocess.run(
        [sys.executable, *options, "-c", script],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
