"""Restarts a worker when its code changes, by werkzeug's reloader.

The reloader runs in the worker's process. When it finds a change, the worker stops
cleanly and ends with :data:`CODE_CHANGED_EXIT`, and its supervisor starts the next
worker.
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

#: Exit code by which werkzeug's reloader asks for a restart.
CODE_CHANGED_EXIT = 3

#: Tells werkzeug that this process runs the app. The supervisor starts it, and not
#: werkzeug, since werkzeug could not stop it cleanly.
RELOADER_VARIABLES = {"WERKZEUG_RUN_MAIN": "true"}

#: Seconds that a stop waits for handlers. The app's own setting is unknown to the
#: supervisor, and a developer can press Ctrl-C a second time.
STOP_TIMEOUT_SECONDS = 60.0


def run_reloading(
    serve: Callable[[StopSignals], int], parent: Parent | None
) -> t.NoReturn:
    """Serve until a signal arrives or the code changes, then end the process."""
    worker = _ReloadableWorker(serve, parent)
    try:
        run_with_reloader(worker.run)
    finally:
        worker.stop()
    raise AssertionError("werkzeug's reloader does not return")


class _ReloadableWorker:
    """Runs the worker in one greenlet, while the reloader runs in another."""

    def __init__(
        self, serve: Callable[[StopSignals], int], parent: Parent | None
    ) -> None:
        self._serve = serve
        self._parent = parent
        self._signals: StopSignals | None = None
        self._changed = False
        # 'threading' is patched here, so waiting lets other greenlets run.
        self._ended = threading.Event()

    def run(self) -> None:
        # Made here, since werkzeug has just replaced the handler of SIGTERM.
        from ..running.process.stop_signals import StopSignals

        self._signals = StopSignals(self._parent)
        try:
            self._finish(self._serve(self._signals))
        except Exception:
            logger.exception("Cannot run; waiting for a change of the code")
            self._signals.asked.wait()
            self._finish(1)

    def stop(self) -> None:
        """Stop the worker because the code has changed."""
        self._changed = True
        if self._signals is not None:
            self._signals.asked.set()
            self._ended.wait()

    def _finish(self, code: int) -> None:
        self._ended.set()
        if not self._changed:
            # The reloader's loop never ends by itself.
            logging.shutdown()
            sys.stdout.flush()
            os._exit(code)
