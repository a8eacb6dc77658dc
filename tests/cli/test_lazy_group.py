"""Commands are imported when they are used; their help does not change."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from flask_qconsume.cli import cli

PROBE = """
import sys
from flask.cli import cli
try:
    cli.main(sys.argv[1:])
finally:
    ours = {name for name in sys.modules if name.startswith("flask_qconsume.cli.")}
    print("imported:", *sorted(ours), file=sys.stderr)
"""


@pytest.mark.process
@pytest.mark.parametrize("args", [["--help"], ["qconsume", "--help"]], ids=" ".join)
def test_help_imports_no_command(args: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *args], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found = done.stderr.rpartition("imported: ")[2].split()
    assert found == ["flask_qconsume.cli.lazy_group"]


@pytest.mark.parametrize("word", cli.lazy)
def test_the_group_has_the_short_help_of_each_command(word: str) -> None:
    command = cli.get_command(click.Context(cli), word)
    assert command is not None
    listed = click.Command(word, help=cli.lazy[word].help)
    assert listed.get_short_help_str(200) == command.get_short_help_str(200)


def test_the_group_lists_its_commands_and_those_of_the_app() -> None:
    context = click.Context(cli)
    assert cli.list_commands(context) == sorted(cli.lazy)
    assert cli.get_command(context, "nonsense") is None
    mine = type(cli)("mine", lazy=cli.lazy)
    mine.add_command(click.Command("again", help="Do it again."))
    assert mine.list_commands(context) == sorted([*cli.lazy, "again"])
    shown = mine.get_help(click.Context(mine))
    assert "Do it again." in shown
    assert all(f"  {word} " in shown for word in cli.lazy)
