"""Exit codes of a worker's process, and signals that end it. Must not import gevent."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import typing as t

#: The exit code of a stop that interrupted handlers; their messages went back to the
#: broker.
FORCED = 3

#: The exit code of a clean stop after the app's code raised ``SystemExit`` or the like.
APP_EXIT = 4

#: Signals that ask for a stop: SIGHUP comes when a terminal is closed, SIGQUIT from
#: Ctrl-\\.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

#: Signals without a meaning here, which would end the process without a handler.
UNUSED_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)

#: Seconds beyond ``QCONSUME_SHUTDOWN_TIMEOUT`` that a stop may need: to settle, to run
#: the ``teardown_worker`` hooks, to close connections.
RESERVE_SECONDS = 15.0


def end_process(code: int) -> t.NoReturn:
    """End this process at once, from any thread.

    Processes that :mod:`multiprocessing` started are ended as well: they wait for work
    from each other's pipes and would stay forever.
    """
    # Not imported: if the module is not loaded, it has started no processes.
    processes = sys.modules.get("multiprocessing.process")
    for child in processes.active_children() if processes else ():
        with contextlib.suppress(Exception):
            child.terminate()
    os._exit(code)
