"""Command ``flask qconsume check``: asks a running worker. Loads no app."""

from __future__ import annotations

import contextlib
import http.client
import pathlib
import sys
import time

import click

from ..running.health.verdict import Verdict
from ..text import escape
from ..text import quote
from .durations import Duration

#: Seconds to wait for the endpoint, which answers from memory.
_ANSWER_TIMEOUT_SECONDS = 5.0


@click.command()
@click.option("--health", metavar="HOST:PORT", help="Address of 'run --health'.")
@click.option("--health-file", metavar="PATH", help="File of 'run --health-file'.")
@click.option("--ready", is_flag=True, help="Fail unless the worker is ready.")
@click.option(
    "--max-age",
    type=Duration(),
    default="30s",
    show_default=True,
    help="Maximum age of the file.",
)
def check(
    health: str | None, health_file: str | None, ready: bool, max_age: float
) -> None:
    """Ask a running worker whether it is live.

    The exit code is 0 if the worker is live, and 1 if not. Give the same --health or
    --health-file as to the worker. A worker that waits for the broker is live, since
    a restart would not help, but it is not ready.
    """
    if (health is None) == (health_file is None):
        raise click.UsageError("Give either --health or --health-file.")
    if health is not None:
        verdict = _ask_endpoint(health)
    else:
        verdict = _read_file(pathlib.Path(str(health_file)), max_age)
    good = verdict.ready if ready else verdict.live
    for problem in verdict.problems:
        click.echo(problem.text, err=True)
    click.echo(f"{'ready' if ready else 'live'}: {'yes' if good else 'no'}")
    sys.exit(0 if good else 1)


def _ask_endpoint(address: str) -> Verdict:
    """Return the verdict that a worker gives at its HTTP endpoint.

    :raises click.ClickException: if the endpoint does not answer.
    """
    try:
        connection = http.client.HTTPConnection(
            address, timeout=_ANSWER_TIMEOUT_SECONDS
        )
        with contextlib.closing(connection):
            connection.request("GET", "/ready")
            return Verdict.from_json(connection.getresponse().read().decode())
    except (OSError, http.client.HTTPException, ValueError, TypeError) as error:
        raise click.ClickException(
            f"No worker answers on {quote(address)} ({escape(error)}). Was it"
            f" started by 'flask qconsume run --health {escape(address)}'?"
        ) from error


def _read_file(path: pathlib.Path, max_age: float) -> Verdict:
    """Return the verdict that a worker has written into its health file.

    :raises click.ClickException: if the file is missing or too old.
    """
    try:
        age = time.time() - path.stat().st_mtime
        verdict = Verdict.from_json(path.read_text())
    except (OSError, ValueError) as error:
        raise click.ClickException(
            f"No worker writes '{path}' ({error}). Was it started by 'flask qconsume"
            f" run --health-file {path}'?"
        ) from error
    if age > max_age:
        raise click.ClickException(
            f"'{path}' was written {age:.0f} s ago: the worker has ended, or is not"
            " live. Its log says why."
        )
    return verdict
