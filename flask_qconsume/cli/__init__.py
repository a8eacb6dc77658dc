"""The commands of ``flask qconsume``.

Flask imports this module for every ``flask`` command, before gevent can patch the
process. So it imports commands, gevent and kombu only when they are needed.
"""

from __future__ import annotations

from .lazy_group import LazyCommand
from .lazy_group import LazyGroup

_COMMANDS = {
    "run": ("run", "run", "Consume messages until SIGTERM, SIGINT, SIGHUP or SIGQUIT."),
    "list": ("list_consumers", "list_consumers", "Show the consumers of the app."),
    "plan": (
        "plan",
        "plan",
        "Show what is declared on the broker, and what the broker guarantees.",
    ),
    "status": (
        "status",
        "status",
        "Show how many messages, suspects and dead letters wait.",
    ),
    "declare": (
        "declare",
        "declare",
        "Declare exchanges, queues and bindings on the broker.",
    ),
    "publish": (
        "publish",
        "publish",
        "Publish a message and print its id, once the broker has confirmed it.",
    ),
    "dead-letters": (
        "dead_letters",
        "dead_letters",
        "List, show, replay and purge rejected messages.",
    ),
    "check": ("check", "check", "Ask a running worker whether it is live."),
}

cli = LazyGroup(
    "qconsume",
    help="Run and manage the app's message consumers.",
    lazy={
        word: LazyCommand(f"{__name__}.{module}", name, summary)
        for word, (module, name, summary) in _COMMANDS.items()
    },
)

__all__ = ["cli"]
