"""Facts that the repository states in two files are the same in both."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import pytest

import flask_qconsume

ROOT = pathlib.Path(__file__).parents[1]

# Paths of the machine that something was written on.
OF_A_MACHINE = re.compile(r"(?<![\w.])/(?:work|root|home/\w+|tmp/venv)/[\w.]")


def test_the_readme_and_ci_run_the_same_test_command() -> None:
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    assert lines[-1].endswith("pip install tox && tox -p 4")
    assert lines[-1] in (ROOT / "README.md").read_text("utf-8").splitlines()


def test_the_changes_begin_with_this_version() -> None:
    found = re.findall(
        r"^Version (\S+)$", (ROOT / "CHANGES.rst").read_text("utf-8"), re.M
    )
    assert found[0] == flask_qconsume.__version__


def test_no_change_is_told_twice() -> None:
    """Merges keep the lines of both sides of this file."""
    text = (ROOT / "CHANGES.rst").read_text("utf-8")
    titles = re.findall(r"^(.+)\n~+$", text, re.M)
    changes = [each.split("\n\n")[0] for each in text.split("\n-   ")[1:]]
    for told in titles, changes:
        assert sorted(told) == sorted(set(told))


@pytest.mark.process
def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{path}: {match.group()}"
        for path in tracked_files()
        for match in OF_A_MACHINE.finditer(text_of(path))
    ]
    assert found == []


#: Files in which a ``sleep`` stands that is not 0, and why.
SLEEPS = {
    "tests/waiting.py": "wait_for looks again after a while; spend is time of a load",
    "tests/cli/conftest.py": "the app's handlers take time; it cannot import tests",
    "tests/cli/test_exits.py": "the app's handlers take time; it cannot import tests",
    "tests/faults/proxy_process.py": "its delays are the faults under test",
}
SLEEP = re.compile(r"\bsleep\((?!0\))")


def test_no_test_sleeps() -> None:
    """A test waits by ``wait_for`` or an event; ``spend`` is for the time of a load."""
    found = {
        str(path.relative_to(ROOT))
        for folder in ("tests", "example_app/tests")
        for path in ROOT.joinpath(folder).rglob("*.py")
        if SLEEP.search(path.read_text("utf-8"))
    }
    assert found == set(SLEEPS)


def tracked_files() -> list[str]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a clone, or no git to read it with")
    # A clone may belong to another user, as in a container.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [path for path in listed.stdout.split("\0") if (ROOT / path).is_file()]


def text_of(path: str) -> str:
    try:
        return (ROOT / path).read_text("utf-8")
    except UnicodeDecodeError:
        return ""
