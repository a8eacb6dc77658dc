"""Commands that are imported when they are used.

Flask imports the group for each of its own commands, ``flask run`` and ``flask --help``
among them, and what ours need would be a large part of the time that those take.
"""

from __future__ import annotations

import importlib
import typing as t
from collections.abc import Mapping

import click
from flask.cli import AppGroup


class Lazy(t.NamedTuple):
    """Where a command is, and what the group's help says of it."""

    module: str
    name: str
    help: str


class LazyGroup(AppGroup):
    """A group that knows of its commands what its own help needs.

    :param lazy: The commands that are not imported yet, by the words that they are
        called by.
    """

    def __init__(
        self, *args: t.Any, lazy: Mapping[str, Lazy], **options: t.Any
    ) -> None:
        super().__init__(*args, **options)
        #: In the order in which they matter.
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in self.lazy:
            module, name, _ = self.lazy[cmd_name]
            found = getattr(importlib.import_module(module), name)
            self.add_command(found, cmd_name)
        return found

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """List all of them, those that are not imported by what is said here."""
        known: dict[str, click.Command] = {
            word: click.Command(word, help=lazy.help)
            for word, lazy in self.lazy.items()
        }
        known.update(self.commands)
        click.Group(commands=known).format_commands(ctx, formatter)
