"""``run --reload``: the worker anew when code changes, by werkzeug's reloader.

The reloader runs in the worker's process, which stops cleanly when it finds a change
and ends with :data:`CHANGED`; the process that supervises it starts the next one.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import typing as t
from collections.abc import Callable

from werkzeug._reloader import run_with_reloader

from ..logs import get_logger

if t.TYPE_CHECKING:
    from ..running.process.parent import Parent
    from ..running.process.stop_signals import StopSignals

logger = get_logger("flask_qconsume.reloading")

#: The exit code by which werkzeug's reloader asks to be started anew.
CHANGED = 3

#: Tells werkzeug that this is the process that runs the app, not the one that starts
#: it: that is ours, which can stop it cleanly.
ENVIRONMENT = {"WERKZEUG_RUN_MAIN": "true"}

#: Seconds that a stop waits for handlers, where the app cannot be asked: whoever
#: develops will press Ctrl-C a second time before that.
STOP_TIMEOUT = 60.0


def run_reloading(
    serve: Callable[[StopSignals], int], parent: Parent | None
) -> t.NoReturn:
    """Serve until a signal or a change of code; ends the process."""
    worker = _Reloaded(serve, parent)
    try:
        run_with_reloader(worker.run)
    finally:
        worker.stop()
    raise AssertionError("werkzeug's reloader does not return")


class _Reloaded:
    """The worker's run, in a greenlet beside the reloader's own."""

    def __init__(
        self, serve: Callable[[StopSignals], int], parent: Parent | None
    ) -> None:
        self._serve = serve
        self._parent = parent
        self._signals: StopSignals | None = None
        self._changed = False
        # Of a patched 'threading': whoever waits lets the others run.
        self._ended = threading.Event()

    def run(self) -> None:
        # Here, since werkzeug has just set a handler of its own for SIGTERM.
        from ..running.process.stop_signals import StopSignals

        self._signals = StopSignals(self._parent)
        try:
            self._finish(self._serve(self._signals))
        except Exception:
            logger.exception("Cannot run; waiting for a change of the code")
            self._signals.asked.wait()
            self._finish(1)

    def stop(self) -> None:
        """Stop the worker since the code has changed."""
        self._changed = True
        if self._signals is not None:
            self._signals.asked.set()
            self._ended.wait()

    def _finish(self, code: int) -> None:
        self._ended.set()
        if not self._changed:
            # The reloader's loop has no end of its own.
            logging.shutdown()
            sys.stdout.flush()
            os._exit(code)
