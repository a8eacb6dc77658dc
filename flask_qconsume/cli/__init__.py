"""``flask qconsume``: its commands.

Flask imports this for every ``flask`` command, before the process can be patched by
gevent. So nothing here imports gevent or kombu until a command needs it.
"""

from __future__ import annotations

from flask.cli import AppGroup

from .run import run

cli = AppGroup("qconsume", help="Run and look after the app's message consumers.")
cli.add_command(run)

__all__ = ["cli"]
