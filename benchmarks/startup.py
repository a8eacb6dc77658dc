"""Times of processes that only start: the minimum of several, in turns."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping

#: Flask's command, without commands of other packages.
_ALONE = """
from flask.cli import FlaskGroup
group = FlaskGroup(name="flask")
group._loaded_plugin_commands = True
group.main(["--help"])
"""

#: Arguments of the interpreter for each process.
STARTS: Mapping[str, tuple[str, ...]] = {
    "flask --help, without us": ("-c", _ALONE),
    "flask --help": ("-m", "flask", "--help"),
    "flask qconsume --help": ("-m", "flask", "qconsume", "--help"),
    "import flask": ("-c", "import flask"),
    "import flask_qconsume": ("-c", "import flask_qconsume"),
}


def least(repeats: int) -> dict[str, tuple[float, float]]:
    """Return the minimum milliseconds of each, by the clock and of processor time."""
    found = [{name: _once(STARTS[name]) for name in STARTS} for _ in range(repeats)]
    return {
        name: (
            min(turn[name][0] for turn in found),
            min(turn[name][1] for turn in found),
        )
        for name in STARTS
    }


def _once(arguments: tuple[str, ...]) -> tuple[float, float]:
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{arguments} ended with {process.returncode}")
    return seconds * 1000, (used.ru_utime + used.ru_stime) * 1000
