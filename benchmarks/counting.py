"""Count of the instructions of each stage of `benchmarks.stages` for one message.

``valgrind`` runs one process. It prepares all stages and forks two children for each;
one of the two handles more messages. The difference of their counts, divided by the
difference in messages, is the cost of a message. The cost of imports is the same in
both, and cancels out.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

_FEWER_MESSAGES, _MORE_MESSAGES = 100, 600

#: Most seconds of a count on a busy machine.
_TIMEOUT = 900

#: Arguments: the tree with the package, the tree with the stages, two message counts.
#: Without counts it prepares and runs each stage once, which shows that it can.
_PROGRAM = """
import os, sys
from gevent import monkey
monkey.patch_all()
tree, stages, *counts = sys.argv[1:]
sys.path[0] = stages
from benchmarks.stages import STAGES
sys.path[0] = tree
names = list(STAGES)[1:]
runs = [STAGES[name](1) for name in names]
if not counts:
    for run in runs:
        run()
for name in names:
    for count in map(int, counts):
        child = os.fork()
        if child == 0:
            print(f"{os.getpid()} {count} {name}", flush=True)
            STAGES[name](count)()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"{name}: a child ended with {status}")
"""


class CannotCount(Exception):
    """There is no commit to compare with, or the stages do not run."""


def count_instructions(
    tree: pathlib.Path, candidates: Sequence[pathlib.Path]
) -> dict[str, float]:
    """Return the instructions of a message by the name of the stage.

    :param tree: The files whose package is measured.
    :param candidates: Trees with stages. The first one whose stages run is used.
    :raises CannotCount: None of them runs, or there is no ``valgrind``.
    """
    if shutil.which("valgrind") is None:
        raise CannotCount("valgrind is missing: apt-get install valgrind")
    stages = _find_stages(tree, candidates)
    counts = [str(count) for count in (_FEWER_MESSAGES, _MORE_MESSAGES)]
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = _run([*valgrind, *_command(tree, stages), *counts], tree)
    if done.returncode:
        raise CannotCount(f"the stages do not run in valgrind:\n{done.stderr[-3000:]}")
    return _read_counts(done.stdout, done.stderr)


def _find_stages(
    tree: pathlib.Path, candidates: Sequence[pathlib.Path]
) -> pathlib.Path:
    said = ""
    for stages in candidates:
        done = _run(_command(tree, stages), tree)
        if done.returncode == 0:
            return stages
        said = done.stderr
    raise CannotCount(f"the stages do not run in {tree}:\n{said[-3000:]}")


def _command(tree: pathlib.Path, stages: pathlib.Path) -> list[str]:
    return [sys.executable, "-c", _PROGRAM, str(tree), str(stages)]


def _run(command: list[str], folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
    )


def _read_counts(printed: str, reported: str) -> dict[str, float]:
    """Join what the children printed with what valgrind reported of them."""
    collected = dict(re.findall(r"==(\d+)== Collected : (\d+)", reported))
    totals: dict[str, dict[int, int]] = {}
    for line in printed.splitlines():
        process, messages, name = line.split(" ", 2)
        totals.setdefault(name, {})[int(messages)] = int(collected[process])
    more = _MORE_MESSAGES - _FEWER_MESSAGES
    return {
        name: (counts[_MORE_MESSAGES] - counts[_FEWER_MESSAGES]) / more
        for name, counts in totals.items()
    }
