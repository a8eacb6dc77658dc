"""Imports and error messages of the commands."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from .commands import Commands

PROBE = """
import sys
before = set(sys.modules)  # Where coverage measures, it imports gevent.
from flask.cli import cli
try:
    cli.main(sys.argv[1:])
finally:
    new = {name.partition(".")[0] for name in sys.modules.keys() - before}
    found = sorted(new & {"gevent", "kombu"})
    print("imported:", found, file=sys.stderr)
"""


def run_and_list_imports(folder: pathlib.Path, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *args],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.rpartition("imported: ")[2].strip()


@pytest.mark.process
@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["qconsume", "--help"],
        ["qconsume", "run", "--help"],
        ["--app", "shop:create_app", "routes"],
        ["--app", "shop:create_app", "qconsume", "list"],
    ],
    ids=" ".join,
)
def test_read_only_commands_import_neither_gevent_nor_kombu(
    folder: pathlib.Path, args: list[str]
) -> None:
    assert run_and_list_imports(folder, *args) == "[]"


@pytest.mark.process
def test_other_commands_than_run_do_not_need_gevent(folder: pathlib.Path) -> None:
    """Importing gevent fails here."""
    (folder / "gevent.py").write_text("raise RuntimeError('imported')")
    assert "gevent" not in run_and_list_imports(
        folder, "--app", "shop:create_app", "qconsume", "plan"
    )


@pytest.mark.process
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"BROKER_URL": "nonsense://x"},
            "begins with 'nonsense', which means no known",
        ),
        ({"CONCURENCY": 3}, "no configuration key 'QCONSUME_CONCURENCY'; did you mean"),
        ({"CONSUMERS": {"orders.bil": {}}}, "names the consumer 'orders.bil'"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_errors_of_the_extension_have_no_traceback(
    commands: Commands, command: str, config: dict[str, object], message: str
) -> None:
    commands.config |= config
    done = commands.run(command)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_an_app_without_the_extension_is_an_error(
    commands: Commands, folder: pathlib.Path
) -> None:
    (folder / "shop.py").write_text(
        "import flask\ndef create_app(): return flask.Flask('bare')\n"
    )
    done = commands.run("list")
    assert (done.returncode, done.stdout) == (1, "")
    assert "The app 'bare' has no QConsume" in done.stderr
