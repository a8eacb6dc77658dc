"""What signals do to a process: the first one stops it, the second one ends it at once.

A native thread sees to that, so it holds while the main thread is blocked. Must not
import gevent: the process that supervises others uses it as well.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from ... import native_threads
from ...logs import get_logger
from ...native_threads import NativeThread
from .exit_codes import FORCED
from .exit_codes import RESERVE
from .exit_codes import STOPS
from .exit_codes import UNUSED
from .signal_reader import GONE
from .signal_reader import SignalReader

logger = get_logger("flask_qconsume.shutdown")

#: Seconds between two looks at how long the stop has taken.
_STEP = 1.0


class SignalWatcher:
    """Watches this process's signals until it ends. To be made in the main thread.

    :param stop: Begins the stop; gets the reason, for the log.
    :param end: Ends the process; gets the exit code.
    :param unused: Called with a signal that has no meaning.
    :param parent: A socket that ends with the supervising process, if there is one.
        That process decides then when this one ends at once: a service manager may
        signal both.

    All of them are called in the watcher's thread.
    """

    def __init__(
        self,
        stop: Callable[[str], object],
        end: Callable[[int], object],
        unused: Callable[[signal.Signals], object],
        parent: int | None = None,
    ) -> None:
        #: Seconds that a stop may take, after which the process ends at once.
        self.limit = RESERVE
        self._stop = stop
        self._end = end
        self._unused = unused
        self._supervised = parent is not None
        self._main = native_threads.get_thread_id()
        self._reader = SignalReader((*STOPS, *UNUSED), parent)
        self._thread = NativeThread(self._watch, "signals").start()

    def _watch(self) -> None:
        self._stop(self._wait_for_stop())
        used = 0.0
        while used < self.limit:
            began = time.monotonic()
            number = self._read(min(_STEP, self.limit - used))
            # A process that was halted meanwhile is not to blame for that time.
            used += min(time.monotonic() - began, 2 * _STEP)
            if number in STOPS and not self._supervised:
                native_threads.log_before_exit(
                    logger.warning, "Second signal: ending at once"
                )
                self._end(128 + number)
        native_threads.log_before_exit(logger.error, self._describe_delay())
        self._end(FORCED)

    def _wait_for_stop(self) -> str:
        """The reason for a stop, once there is one."""
        while (number := self._read()) is None:
            pass
        if number is GONE:
            return "The supervising process is gone: stopping"
        more = "" if self._supervised else "; once more ends at once"
        return f"{signal.Signals(number).name}: stopping{more}"

    def _read(self, timeout: float | None = None) -> int | None:
        number = self._reader.read(timeout)
        if number is GONE:
            self._supervised = False
        elif number in UNUSED:
            self._unused(signal.Signals(number))
            return None
        return number

    def _describe_delay(self) -> str:
        return (
            f"The stop has not ended after {self.limit:g} s: ending at once. What was"
            " not settled comes again. The main thread's stack:\n"
            f"{native_threads.format_stack(self._main)}"
        )
