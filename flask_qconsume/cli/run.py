"""``flask qconsume run``: a worker in its own process, or beside a web server."""

from __future__ import annotations

import logging
import sys
import typing as t

import click
from flask import current_app
from flask.cli import with_appcontext

from ..errors import QConsumeError
from .patching import ensure_patched

if t.TYPE_CHECKING:
    from flask import Flask


@click.command()
@click.argument("names", nargs=-1)
@click.option(
    "--web",
    metavar="HOST:PORT",
    help="Serve the app over HTTP too, in this process.",
)
@click.option(
    "--reexec/--no-reexec",
    default=True,
    help="Start anew in an interpreter patched by gevent (the default).",
)
def run(names: tuple[str, ...], web: str | None, reexec: bool) -> None:
    """Consume messages until SIGTERM or SIGINT.

    NAMES are the consumers to run, such as orders.bill; all of them unless given.
    """
    if reexec:
        ensure_patched()
    _run_here(names=names, web=web)


@with_appcontext
def _run_here(names: tuple[str, ...], web: str | None) -> None:
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    log_to_stderr()
    try:
        code = serve(app, names, web)
    except QConsumeError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(code)


def serve(app: Flask, names: t.Sequence[str], web: str | None) -> int:
    """Run a worker, and a web server if so asked, until a signal; the exit code."""
    from ..running.shutdown import FORCED
    from ..running.shutdown import StopSignals
    from ..running.web import Web
    from ..running.web import listen
    from ..running.worker import Worker

    signals = StopSignals()
    server = Web(app, listen(web)) if web else None
    worker = Worker(app, names)
    worker.start()
    if server is not None:
        server.start()
    signals.asked.wait()
    if server is not None:
        server.stop(worker.settings.shutdown_timeout)
    clean = worker.stop()
    return 0 if clean else FORCED


def log_to_stderr() -> None:
    """Show our own log lines, unless the app has set up logging itself."""
    logger = logging.getLogger("flask_qconsume")
    if logging.getLogger().handlers or logger.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)-7s %(name)s  %(message)s")
    )
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
