"""Commands whose modules are imported only when the commands are used.

Flask imports the group for each ``flask`` command, such as ``flask run`` and ``flask
--help``. The imports of the commands here would take a large part of their time.
"""

from __future__ import annotations

import importlib
import typing as t
from collections.abc import Mapping

import click
from flask.cli import AppGroup


class LazyCommand(t.NamedTuple):
    """A command that is not imported yet: its module, its name, its line of help."""

    module: str
    name: str
    help: str


class LazyGroup(AppGroup):
    """A group of commands that imports a command when it is called.

    :param lazy: The commands, by their names on the command line.
    """

    def __init__(
        self, *args: t.Any, lazy: Mapping[str, LazyCommand], **options: t.Any
    ) -> None:
        super().__init__(*args, **options)
        #: The most important commands first.
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in self.lazy:
            module, name, _ = self.lazy[cmd_name]
            command = getattr(importlib.import_module(module), name)
            self.add_command(command, cmd_name)
        return command

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the commands' lines of help, without importing the commands."""
        commands: dict[str, click.Command] = {
            word: click.Command(word, help=lazy.help)
            for word, lazy in self.lazy.items()
        }
        commands.update(self.commands)
        click.Group(commands=commands).format_commands(ctx, formatter)
