"""Instructions of each stage of a message: ``python -m benchmarks.instructions``.

Times on a shared machine say little; the number of instructions that the processor
executes for a message hardly changes from run to run.

``python -m benchmarks.instructions COMMIT``
    compares the files as they are with a commit, a branch or a tag.
``python -m benchmarks.instructions --guard``
    compares with the parent commit, or with the last commit if files have changed
    since, and ends with 1 if a stage costs at least 3 per cent more. An increase that
    is meant is accepted if the message of the last commit has a line ``Costs-more:
    <reason>``, or if the environment variable ``BENCHMARK_COSTS_MORE`` gives a reason.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import typing as t
from concurrent.futures import ThreadPoolExecutor

from .counting import CannotCount
from .counting import count_instructions

ROOT = pathlib.Path(__file__).parents[1]

#: How much more a stage may cost than at the parent commit, as a fraction.
MAX_INCREASE = 0.03

#: The line of a commit message, and the variable, that accept an increase.
ACCEPTING_LINE = "Costs-more"
ACCEPTING_VARIABLE = "BENCHMARK_COSTS_MORE"

Counts = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions")
    parser.add_argument("commit", nargs="?", help="the commit to compare with")
    parser.add_argument("--guard", action="store_true", help="fail at 3 per cent more")
    options = parser.parse_args()
    try:
        if options.guard:
            guard()
        elif options.commit:
            _print_changes(*compare(options.commit))
        else:
            _print_changes({}, count_instructions(ROOT, [ROOT]))
    except CannotCount as error:
        print(f"NOT COMPARED: {error}", file=sys.stderr)
        sys.exit(2)


def guard() -> None:
    """Exit with 1 if a stage costs too much more than at the parent commit."""
    before, now = compare(find_parent())
    _print_changes(before, now)
    refuse_increases(find_increases(before, now), find_accepting_reason())


def refuse_increases(increased: list[str], reason: str) -> None:
    """Exit with 1 and advice if stages cost more and no reason is given."""
    if not increased:
        return
    print(f"\nAt least {MAX_INCREASE:.0%} more instructions: {', '.join(increased)}.")
    if not reason:
        sys.exit(
            "Find the cause with 'python -m benchmarks.stages' and a profiler. If the"
            f" cost is meant, say why: a line '{ACCEPTING_LINE}: <reason>' in the"
            f" message of the last commit, or {ACCEPTING_VARIABLE}=<reason> in the"
            " environment."
        )
    print(f"Accepted: {reason}")


def find_parent() -> str:
    """Return the commit that the files as they are should be compared with.

    :raises CannotCount: The commit is not in this repository.
    """
    if not (ROOT / ".git").exists():
        raise CannotCount("this folder is not a Git repository: no parent commit")
    if _git("status", "--porcelain", "--untracked-files=no"):
        return "HEAD"
    if _has_commit("HEAD^"):
        return "HEAD^"
    if _git("rev-parse", "--is-shallow-repository") == "true":
        raise CannotCount(
            "the clone is shallow and lacks the parent commit;"
            " 'git fetch --deepen 1' brings it"
        )
    raise CannotCount("this is the first commit, which has no parent")


def find_increases(before: Counts, now: Counts) -> list[str]:
    """Return the stages that cost too much more, in both of which they exist."""
    both = before.keys() & now.keys()
    return [
        name
        for name, count in now.items()
        if name in both and count >= before[name] * (1 + MAX_INCREASE)
    ]


def find_accepting_reason() -> str:
    """Return why an increase is meant, or nothing."""
    given = os.environ.get(ACCEPTING_VARIABLE, "")
    trailer = f"--format=%(trailers:key={ACCEPTING_LINE},valueonly)"
    return given or _git("log", "-1", trailer)


def compare(commit: str) -> tuple[Counts, Counts]:
    """Count at a commit and in the files as they are, both at the same time.

    A commit that cannot run the stages of these files, since names differ, is counted
    with its own.
    """
    with _checked_out(commit) as tree, ThreadPoolExecutor(2) as threads:
        before = threads.submit(count_instructions, tree, [ROOT, tree])
        now = threads.submit(count_instructions, ROOT, [ROOT])
        return before.result(), now.result()


@contextlib.contextmanager
def _checked_out(commit: str) -> t.Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        _git("worktree", "add", "--detach", folder, commit)
        try:
            yield pathlib.Path(folder)
        finally:
            _git("worktree", "remove", "--force", folder)


def _print_changes(before: Counts, now: Counts) -> None:
    for name, count in now.items():
        then, change = "", ""
        if name in before:
            then = f"{before[name]:,.0f}"
            change = f"{count / before[name] - 1:+9.1%}"
        print(f"{name:<32}{then:>12}{count:>12,.0f}{change}", flush=True)


def _has_commit(name: str) -> bool:
    command = ["git", "rev-parse", "--quiet", "--verify", f"{name}^{{commit}}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


if __name__ == "__main__":
    main()
