"""Virtual environments that hold what is asked for, and no tool of the tests.

uv makes one in a second. It must not know the package under test.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import typing as t


class Environment:
    """An environment without pip, and so without what pip would bring."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        uv("venv", "--quiet", "--python", sys.executable, str(folder))

    def install(self, *arguments: str) -> None:
        """Install requirements; options of ``uv pip install`` may stand among them."""
        uv("pip", "install", "--quiet", "--python", self.program("python"), *arguments)

    def program(self, name: str) -> str:
        return str(self.folder / "bin" / name)

    def run(self, *command: str, folder: pathlib.Path) -> str:
        """Run one of its programs to its end, in a folder; return what it printed."""
        return output_of([self.program(command[0]), *command[1:]], folder)


def uv(*arguments: str) -> None:
    output_of([sys.executable, "-m", "uv", *arguments], pathlib.Path.cwd())


def output_of(
    command: t.Sequence[str],
    folder: pathlib.Path,
    environment: t.Mapping[str, str] | None = None,
) -> str:
    """Run a command that must succeed; return what it printed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ if environment is None else environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command} in {folder}:\n{done.stdout}{done.stderr}"
    return done.stdout
