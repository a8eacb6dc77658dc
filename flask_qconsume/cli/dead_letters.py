"""Commands ``flask qconsume dead-letters``: list, show, replay and purge."""

from __future__ import annotations

import contextlib
import itertools
import sys
import typing as t
from collections.abc import Callable
from collections.abc import Iterator

import click

from ..broker.dead_letters import DeadLetter
from ..text import pluralize
from .dead_letter_filters import DeadLetterSelection
from .dead_letter_filters import with_selection
from .dead_letter_text import HEADERS
from .dead_letter_text import format_json
from .dead_letter_text import format_page
from .dead_letter_text import format_row
from .table import format_table

_NONE_FOUND = "There are no such dead letters."

_json = click.option(
    "--json",
    "as_lines",
    is_flag=True,
    help="Print a line of JSON for each dead letter.",
)
_limit = click.option(
    "--limit",
    type=click.IntRange(0),
    default=50,
    show_default=True,
    help="Maximum number of dead letters; 0 for all.",
)
_dry_run = click.option("--dry-run", is_flag=True, help="Only list the dead letters.")


@click.group("dead-letters")
def dead_letters() -> None:
    """List, show, replay and purge rejected messages.

    Name queues or consumers to select their dead letters. The default is all queues.
    """


@dead_letters.command("list")
@_limit
@_json
@with_selection
def list_letters(selection: DeadLetterSelection, limit: int, as_lines: bool) -> None:
    """Show each dead letter in one line, the oldest of each queue first."""
    with _open_limited(selection, limit) as letters:
        if as_lines:
            _echo_json(selection, letters, whole=False)
            return
        rows = [format_row(letter) for letter in letters]
        click.echo(format_table(HEADERS, rows) if rows else _NONE_FOUND)


@dead_letters.command()
@_limit
@_json
@with_selection
def show(selection: DeadLetterSelection, limit: int, as_lines: bool) -> None:
    """Show whole dead letters: headers, error, traceback and body."""
    with _open_limited(selection, limit) as letters:
        if as_lines:
            _echo_json(selection, letters, whole=True)
            return
        number = 0
        for letter in letters:
            number += 1
            click.echo(format_page(letter, selection.get_decoders(letter)) + "\n")
        if not number:
            click.echo(_NONE_FOUND)


@dead_letters.command()
@_dry_run
@with_selection
def replay(selection: DeadLetterSelection, dry_run: bool) -> None:
    """Send dead letters back to their queues.

    A dead letter is removed when the broker has confirmed its copy. The attempts of
    the copy begin at 1. A copy that fails meanwhile is not replayed a second time.
    """
    if dry_run:
        _preview(selection, "would be replayed")
        return
    _take(selection, replay=True, done="Replayed")


@dead_letters.command()
@_dry_run
@click.option("--yes", "-y", is_flag=True, help="Do not ask before removing.")
@with_selection
def purge(selection: DeadLetterSelection, dry_run: bool, yes: bool) -> None:
    """Remove dead letters permanently."""
    if dry_run:
        _preview(selection, "would be removed")
        return
    if not yes:
        number = _count_selected(selection)
        if not number:
            click.echo(_NONE_FOUND)
            selection.check_ids()
            return
        click.confirm(
            f"Remove {pluralize(number, 'dead letter')} permanently?", abort=True
        )
    _take(selection, replay=False, done="Removed")


@contextlib.contextmanager
def _open_limited(
    selection: DeadLetterSelection, limit: int
) -> Iterator[Iterator[DeadLetter]]:
    """Yield the first dead letters; print a line if there are more."""
    with selection.open_letters() as letters:
        yield itertools.islice(letters, limit or None)
        more = bool(limit) and next(letters, None) is not None
    if more:
        click.echo(f"… and more: these are the first {limit}; see --limit.", err=True)
    else:
        selection.check_ids()


def _echo_json(
    selection: DeadLetterSelection, letters: Iterator[DeadLetter], *, whole: bool
) -> None:
    for letter in letters:
        click.echo(format_json(letter, selection.get_decoders(letter), whole=whole))


def _preview(selection: DeadLetterSelection, fate: str) -> None:
    with selection.open_letters() as letters:
        rows = [format_row(letter) for letter in letters]
    if rows:
        click.echo(format_table(HEADERS, rows))
    click.echo(f"{pluralize(len(rows), 'dead letter')} {fate}.")
    selection.check_ids()


def _count_selected(selection: DeadLetterSelection) -> int:
    with selection.open_letters() as letters:
        return sum(1 for _ in letters)


def _take(selection: DeadLetterSelection, *, replay: bool, done: str) -> None:
    total = 0
    with _show_progress(selection.count(), done) as progress:
        for _, letters in selection.queues:
            wanted = _FirstLetters(letters.count(), selection.selects)
            total += letters.take(wanted, replay, progress)
    click.echo(f"{done} {pluralize(total, 'dead letter')}.")
    selection.check_ids()


class _FirstLetters:
    """Selects dead letters, but only among the first ones of the queue.

    A replayed message that fails again comes back at the end of the queue while the
    command still runs. Without this limit the command would replay it for ever.
    """

    def __init__(self, number: int, wanted: Callable[[DeadLetter], bool]) -> None:
        self._letters_left = number
        self._wanted = wanted

    def __call__(self, letter: DeadLetter) -> bool:
        self._letters_left -= 1
        return self._letters_left >= 0 and self._wanted(letter)


@contextlib.contextmanager
def _show_progress(length: int, label: str) -> Iterator[Callable[[], t.Any]]:
    """Yield a function that counts dead letters; it draws a bar on a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    bar: t.Any = click.progressbar(length=length, label=label, file=sys.stderr)
    with bar:
        yield lambda: bar.update(1)
