"""Instructions per message, counted: ``python -m benchmarks.instructions [COMMIT]``.

Times on a machine that others use say little; the number of instructions that the
processor is given hardly changes from run to run. ``valgrind`` counts them, for each
stage with some messages and with twice as many; the difference is what a message costs.
With a commit (a branch, a tag) that one is measured beside the files as they are now.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tempfile

from .stages import STAGES

ROOT = pathlib.Path(__file__).parents[1]

_FEW, _MORE = 100, 600

_RUN = """
import sys
from gevent import monkey
monkey.patch_all()
# The stages of these files, the package of that tree.
sys.path[0] = sys.argv[2]
from benchmarks.stages import STAGES
sys.path[0] = sys.argv[1]
STAGES[sys.argv[3]](int(sys.argv[4]))()
"""


def main(commit: str = "") -> None:
    if not commit:
        _compare([ROOT])
        return
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        _git("worktree", "add", "--detach", folder, commit)
        try:
            _compare([pathlib.Path(folder), ROOT])
        finally:
            _git("worktree", "remove", "--force", folder)


def _compare(trees: list[pathlib.Path]) -> None:
    for name in list(STAGES)[1:]:
        counts = [per_message(tree, name) for tree in trees]
        texts = "".join(f"{_text(count):>12}" for count in counts)
        change = ""
        if len(counts) == 2 and all(counts):
            change = f"{counts[1] / counts[0] - 1:+9.1%}"  # type: ignore[operator]
        print(f"{name:<32}{texts}{change}", flush=True)


def _text(count: float | None) -> str:
    return "–" if count is None else f"{count:,.0f}"


def per_message(tree: pathlib.Path, name: str) -> float | None:
    """The instructions; ``None`` where a tree has no such stage."""
    counts = [_counted(tree, name, messages) for messages in (_FEW, _MORE)]
    if None in counts:
        return None
    few, more = counts
    return (more - few) / (_MORE - _FEW)  # type: ignore[operator]


def _counted(tree: pathlib.Path, name: str, messages: int) -> int | None:
    code = [sys.executable, "-c", _RUN, str(tree), str(ROOT), name, str(messages)]
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *code],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        cwd=tree,
        capture_output=True,
        text=True,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    return int(found[1]) if found and done.returncode == 0 else None


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
