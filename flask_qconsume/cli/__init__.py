"""``flask qconsume``: its commands.

Flask imports this for every ``flask`` command, before the process can be patched by
gevent. So nothing here imports gevent or kombu until a command needs it.
"""

from __future__ import annotations

from flask.cli import AppGroup

from .check import check
from .dead_letters import dead_letters
from .declare import declare
from .listing import list_consumers
from .plan import plan
from .publish import publish
from .run import run
from .status import status

cli = AppGroup("qconsume", help="Run and look after the app's message consumers.")
for command in (
    run,
    list_consumers,
    plan,
    status,
    declare,
    publish,
    dead_letters,
    check,
):
    cli.add_command(command)

__all__ = ["cli"]
