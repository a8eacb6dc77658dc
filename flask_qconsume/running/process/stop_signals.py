"""Turns stop signals into an event that greenlets can wait for."""

from __future__ import annotations

import signal

import gevent

from ... import native_threads
from ...logs import get_logger
from ...native_threads import Latch
from ..event import Event
from .exit_codes import RESERVE_SECONDS
from .exit_codes import end_process
from .parent import Parent
from .signal_watcher import SignalWatcher

logger = get_logger("flask_qconsume.shutdown")

#: Seconds after which an event loop that has not noticed a stop counts as blocked.
_NOTICE_SECONDS = 0.5

_BLOCKED_TEXT = (
    "%s. It cannot begin yet: nothing else runs until the code below lets go. The"
    " process ends in %g s in any case. The stack:\n%s"
)


class StopSignals:
    """Sets an event when a signal asks for a stop.

    Create it in the main thread, and only in processes that run a command of this
    package: under another server it would replace that server's signal handlers.

    :param parent: The process that supervises this one, if there is one.
    """

    def __init__(self, parent: Parent | None = None) -> None:
        #: Set once a signal asks for a stop.
        self.asked = Event()
        self._reason = ""
        self._noticed = Latch()
        self._hub_thread = native_threads.get_thread_id()
        self._wake = gevent.get_hub().loop.async_(ref=False)
        self._wake.start(gevent.spawn, self._notice)
        control = None if parent is None else parent.fileno()
        self._watcher = SignalWatcher(self._stop, end_process, _log_unused, control)

    def allow(self, timeout: float) -> None:
        """Set how long a stop may take: ``timeout`` seconds and some more."""
        self._watcher.limit = timeout + RESERVE_SECONDS

    def _stop(self, reason: str) -> None:
        self._reason = reason
        self._wake.send()
        if not self._noticed.wait(_NOTICE_SECONDS):
            stack = native_threads.format_stack(self._hub_thread)
            limit = self._watcher.limit
            native_threads.run_in_thread(
                "signals", logger.warning, _BLOCKED_TEXT, reason, limit, stack
            )

    def _notice(self) -> None:
        self._noticed.open()
        self.asked.set()
        logger.info("%s", self._reason)


def _log_unused(number: signal.Signals) -> None:
    text = "%s: ignored, since it has no meaning for a worker"
    native_threads.run_in_thread("signals", logger.info, text, number.name)
