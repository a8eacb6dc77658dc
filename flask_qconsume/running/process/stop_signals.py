"""The stop of a worker's process, as its signals ask for it."""

from __future__ import annotations

import signal

import gevent

from ... import native_threads
from ...logs import get_logger
from ...native_threads import Latch
from ..event import Event
from .exit_codes import RESERVE
from .exit_codes import end_process
from .parent import Parent
from .signal_watcher import SignalWatcher

logger = get_logger("flask_qconsume.shutdown")

#: Seconds within which the hub notices that a stop is asked for, unless it is blocked.
_NOTICED = 0.5

_BLOCKED = (
    "%s. It cannot begin yet: nothing else runs until the code below lets go. The"
    " process ends in %g s in any case. The stack:\n%s"
)


class StopSignals:
    """Waits for a signal that asks for a stop, in a process of our own.

    Under a server of another kind it would replace that server's handlers, so only our
    commands use it. To be made on the worker's hub.

    :param parent: The process that supervises this one, if there is one.
    """

    def __init__(self, parent: Parent | None = None) -> None:
        #: Set once a stop is asked for.
        self.asked = Event()
        self._reason = ""
        self._noticed = Latch()
        self._hub_thread = native_threads.get_thread_id()
        self._wake = gevent.get_hub().loop.async_(ref=False)
        self._wake.start(gevent.spawn, self._notice)
        control = None if parent is None else parent.fileno()
        self._watcher = SignalWatcher(self._stop, end_process, _say_unused, control)

    def allow(self, timeout: float) -> None:
        """Let a stop take so many seconds, and what it needs to settle and to close."""
        self._watcher.limit = timeout + RESERVE

    def _stop(self, reason: str) -> None:
        """Have the hub notice it; in the watcher's thread."""
        self._reason = reason
        self._wake.send()
        if not self._noticed.wait(_NOTICED):
            stack = native_threads.format_stack(self._hub_thread)
            limit = self._watcher.limit
            native_threads.run_in_thread(
                "signals", logger.warning, _BLOCKED, reason, limit, stack
            )

    def _notice(self) -> None:
        self._noticed.open()
        self.asked.set()
        logger.info("%s", self._reason)


def _say_unused(number: signal.Signals) -> None:
    text = "%s: ignored, since it has no meaning for a worker"
    native_threads.run_in_thread("signals", logger.info, text, number.name)
