"""Acts on signals: the first one starts a clean stop, the second one ends the process.

This happens in a native thread, even while the main thread is blocked. Must not import
gevent: the supervising process uses this module as well.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from ... import native_threads
from ...logs import get_logger
from ...native_threads import NativeThread
from .exit_codes import FORCED
from .exit_codes import RESERVE_SECONDS
from .exit_codes import STOP_SIGNALS
from .exit_codes import UNUSED_SIGNALS
from .signal_reader import PARENT_GONE
from .signal_reader import SignalReader

logger = get_logger("flask_qconsume.shutdown")

#: Seconds between two checks of how long the stop has taken.
_CHECK_SECONDS = 1.0


class SignalWatcher:
    """Waits for this process's signals in a native thread, and acts on them.

    Create it in the main thread. The functions below are called in the watcher's
    thread.

    :param stop: Starts the stop; called with the reason, for the log.
    :param end: Ends the process; called with the exit code.
    :param on_unused: Called with each SIGUSR1 and SIGUSR2.
    :param parent: For a supervised process, the descriptor of a socket that is readable
        once the supervisor has ended. While the supervisor runs, it alone acts on a
        second signal, since a service manager may signal both processes.
    """

    def __init__(
        self,
        stop: Callable[[str], object],
        end: Callable[[int], object],
        on_unused: Callable[[signal.Signals], object],
        parent: int | None = None,
    ) -> None:
        #: Seconds that a stop may take before the process is ended at once.
        self.limit = RESERVE_SECONDS
        self._stop = stop
        self._end = end
        self._on_unused = on_unused
        self._supervised = parent is not None
        self._main = native_threads.get_thread_id()
        self._reader = SignalReader((*STOP_SIGNALS, *UNUSED_SIGNALS), parent)
        self._thread = NativeThread(self._watch, "signals").start()

    def _watch(self) -> None:
        self._stop(self._wait_for_stop())
        used = 0.0
        while used < self.limit:
            began = time.monotonic()
            number = self._read(min(_CHECK_SECONDS, self.limit - used))
            # Time for which the process was suspended does not count.
            used += min(time.monotonic() - began, 2 * _CHECK_SECONDS)
            if number in STOP_SIGNALS and not self._supervised:
                native_threads.log_before_exit(
                    logger.warning, "Second signal: ending at once"
                )
                self._end(128 + number)
        native_threads.log_before_exit(logger.error, self._describe_delay())
        self._end(FORCED)

    def _wait_for_stop(self) -> str:
        while (number := self._read()) is None:
            pass
        if number is PARENT_GONE:
            return "The supervising process is gone: stopping"
        more = "" if self._supervised else "; once more ends at once"
        return f"{signal.Signals(number).name}: stopping{more}"

    def _read(self, timeout: float | None = None) -> int | None:
        number = self._reader.read(timeout)
        if number is PARENT_GONE:
            self._supervised = False
        elif number in UNUSED_SIGNALS:
            self._on_unused(signal.Signals(number))
            return None
        return number

    def _describe_delay(self) -> str:
        return (
            f"The stop has not ended after {self.limit:g} s: ending at once. Messages"
            " that were not settled will be delivered again. The main thread's stack:\n"
            f"{native_threads.format_stack(self._main)}"
        )
