"""Starts, restarts and stops several worker processes.

The children are new Python processes, not forks: they share only the listening socket.
Must not import gevent: the supervising process is not patched.
"""

from __future__ import annotations

import selectors
import signal
import socket
import time
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace

from ...logs import get_logger
from ...native_threads import Latch
from ..health.problem_log import ProblemLog
from ..health.reporters import Reporter
from ..health.verdict import Problem
from ..health.verdict import Verdict
from ..health.verdict import combine
from .child_process import LOOK_SECONDS
from .child_process import MIN_SILENT_SECONDS
from .child_process import ChildLimits
from .child_process import ChildProcess
from .exit_codes import FORCED
from .exit_codes import RESERVE_SECONDS
from .exit_codes import end_process
from .signal_watcher import SignalWatcher

logger = get_logger("flask_qconsume.processes")

#: Seconds that a child gets for its stop beyond its own limit.
_EXTRA_STOP_SECONDS = 2.0

#: Seconds after which a main thread that has not noticed a stop counts as blocked.
_NOTICE_SECONDS = 1.0

#: Seconds between two reports of the verdict.
_REPORT_SECONDS = 1.0

_LIMITS = ChildLimits()

#: Exit codes of a process that ends because of a configuration error.
_CONFIGURATION_ERRORS = (1, 2)


class Supervisor:
    """Keeps a number of worker processes running until a stop is requested.

    :param command: The command line of each child.
    :param environment: The environment variables of each child.
    :param count: How many children run at once.
    :param listener: A listening socket that all children share.
    :param stop_timeout: Seconds that a child's stop waits for its handlers.
    :param limits: When a child counts as not live, and when it is killed.
    :param again: Exit codes by which a child asks to be restarted at once.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        count: int,
        listener: socket.socket | None = None,
        stop_timeout: float,
        limits: ChildLimits = _LIMITS,
        again: Collection[int] = (),
    ) -> None:
        self._stop_timeout = stop_timeout
        self._limits = limits
        self._listener = listener
        self._again = again
        self._selector = selectors.DefaultSelector()
        self._children = [
            ChildProcess(
                list(command),
                environment,
                listener,
                self._selector,
                limits,
            )
            for _ in range(count)
        ]
        #: The reason to stop; empty until a stop is requested.
        self._stop_reason = ""
        self._noticed = Latch()
        #: The exit code, if the supervisor is ended at once.
        self._code = 0
        self._was_ever_up = False
        self._reporter = Reporter()
        self._report_at = 0.0
        self._log = ProblemLog(logger)
        self._verdict = Verdict(live=True, ready=False)
        self._judged_at = time.monotonic()

    @property
    def verdict(self) -> Verdict:
        """The combined verdict on all children; any thread may read it."""
        silent = time.monotonic() - self._judged_at
        if silent < max(MIN_SILENT_SECONDS, self._limits.silent):
            return self._verdict
        text = (
            f"The supervising process has done nothing for {silent:.0f} s: it is"
            " suspended, or writing to its log does not end."
        )
        return Verdict(False, False, (Problem("silent", "", text),))

    def add_outlet(self, outlet: Callable[[Verdict], object]) -> None:
        """Add a function that gets the combined verdict once a second."""
        self._reporter.add_outlet(outlet)

    def run(self) -> int:
        """Run the children until a signal asks for a stop; return the exit code."""
        watcher = SignalWatcher(self._request_stop, self._end, self._pass_on)
        watcher.limit = self._stop_timeout + RESERVE_SECONDS + 2 * _EXTRA_STOP_SECONDS
        try:
            code = self._supervise()
            stopped = self._stop()
            return self._code or code or stopped
        finally:
            self._kill()
            self._selector.close()

    # -- in the thread that watches the signals ---------------------------------------

    def _request_stop(self, reason: str) -> None:
        self._stop_reason = reason
        if not self._noticed.wait(_NOTICE_SECONDS):
            # The main thread is blocked, for example by writing to the log.
            for child in self._children:
                child.send(signal.SIGTERM)

    def _end(self, code: int) -> None:
        # Set first, since the main thread may notice before that all children have
        # ended.
        self._code = code
        for child in self._children:
            child.send(signal.SIGKILL)
        for child in self._children:
            child.wait(_EXTRA_STOP_SECONDS)
        end_process(code)

    def _pass_on(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.up:  # Before, it has no handler, and the signal would end it.
                child.send(number)

    # -- in the main thread -----------------------------------------------------------

    def _supervise(self) -> int:
        while not self._stop_reason:
            for child in self._children:
                child.start_if_due()
            self._read_reports(LOOK_SECONDS)
            self._kill_blocked()
            for child in self._children:
                code = child.take_exit_code()
                if code is not None and self._is_final(child, code):
                    return code
        return 0

    def _is_final(self, child: ChildProcess, code: int) -> bool:
        """Return whether the supervisor ends with a child; if not, plan a restart."""
        if code in self._again:
            child.due = 0.0
            return False
        if code in _CONFIGURATION_ERRORS and not child.up:
            child.failed = True
        if not self._was_ever_up and all(sibling.failed for sibling in self._children):
            logger.error("Process %d could not start: giving up", child.pid)
            return True
        delay = child.schedule_restart()
        logger.warning(
            "Process %d ended (%s); starting another one in %.1f s",
            child.pid,
            _describe_exit(code),
            delay,
        )
        return False

    def _kill_blocked(self) -> None:
        for child in self._children:
            if child.kill_if_blocked():
                logger.error(
                    "Process %d: its hub has not run for %.0f s: killed. Its"
                    " messages will be delivered again as suspects",
                    child.pid,
                    child.blocked_for,
                )

    def _read_reports(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            key.data.read_reports()
        self._was_ever_up = self._was_ever_up or any(
            child.up for child in self._children
        )
        self._judge()

    def _judge(self) -> None:
        now = time.monotonic()
        verdict = combine({child.name: child.check(now) for child in self._children})
        self._verdict = replace(verdict, ready=verdict.ready and not self._stop_reason)
        self._judged_at = now
        self._log.update(verdict.problems)
        if now >= self._report_at:
            self._report_at = now + _REPORT_SECONDS
            self._reporter.report(self._verdict)

    def _stop(self) -> int:
        self._noticed.open()
        if self._listener is not None:
            self._listener.close()
        running = [child for child in self._children if child.running]
        for child in running:
            child.send(signal.SIGTERM)
        if self._stop_reason:
            logger.info("%s", self._stop_reason)
        deadline = (
            time.monotonic()
            + self._stop_timeout
            + RESERVE_SECONDS
            + _EXTRA_STOP_SECONDS
        )
        codes = []
        while running and time.monotonic() < deadline:
            self._read_reports(LOOK_SECONDS)
            codes += [code for c in running if (code := c.take_exit_code()) is not None]
            running = [child for child in running if child.running]
        for child in running:
            logger.error("Process %d does not end: killing it", child.pid)
        return FORCED if running or any(map(_is_unclean, codes)) else 0

    def _kill(self) -> None:
        for child in self._children:
            child.kill()


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _is_unclean(code: int) -> bool:
    # A child that SIGTERM ended was still starting, and had no messages.
    return code not in (0, -signal.SIGTERM)
