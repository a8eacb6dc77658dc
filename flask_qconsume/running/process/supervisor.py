"""Several worker processes under one that starts them, restarts them and stops them.

The children are fresh interpreters, not forks: nothing is shared but the listening
socket. Must not import gevent: the process that supervises is not patched.
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
from ..health.reporters import Recipients
from ..health.verdict import Trouble
from ..health.verdict import Verdict
from ..health.verdict import together
from ..trouble_log import TroubleLog
from .child_process import LOOK
from .child_process import SILENT
from .child_process import ChildLimits
from .child_process import ChildProcess
from .exit_codes import FORCED
from .exit_codes import RESERVE
from .exit_codes import end_process
from .signal_watcher import SignalWatcher

logger = get_logger("flask_qconsume.processes")

#: Seconds that a child has for its stop beyond those that it gives itself.
_LATER = 2.0

#: Seconds within which the main thread notices that a stop is asked for.
_NOTICED = 1.0

_LIMITS = ChildLimits()

#: Exit codes of a process that finds its own configuration wrong.
_WRONG = (1, 2)


class Supervisor:
    """Keeps so many children running until it is asked to stop.

    :param command: What to run, with an environment.
    :param listener: A listening socket that all children share.
    :param stop_timeout: Seconds that a child's stop waits for its handlers.
    :param limits: When a child counts as not live, and when it is killed.
    :param again: Exit codes by which a child asks to be started anew, at once.
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
        #: Why it stops, once it is asked to.
        self._asked = ""
        self._noticed = Latch()
        #: The exit code, where it ends at once.
        self._code = 0
        self._ever_up = False
        self._recipients = Recipients()
        self._tell_at = 0.0
        self._log = TroubleLog(logger)
        self._verdict = Verdict(live=True, ready=False)
        self._judged_at = time.monotonic()

    @property
    def verdict(self) -> Verdict:
        """What is to be answered for all children; any thread may read it."""
        silent = time.monotonic() - self._judged_at
        if silent < max(SILENT, self._limits.silent):
            return self._verdict
        text = (
            f"The supervising process has done nothing for {silent:.0f} s: it is"
            " halted, or what it logs to takes nothing."
        )
        return Verdict(False, False, (Trouble("silent", "", text),))

    def tell(self, told: Callable[[Verdict], object]) -> None:
        """Have a function called with the verdict about all children, each second."""
        self._recipients.add(told)

    def run(self) -> int:
        """Supervise until a signal; the exit code."""
        watcher = SignalWatcher(self._ask, self._end, self._pass_on)
        watcher.limit = self._stop_timeout + RESERVE + 2 * _LATER
        try:
            code = self._supervise()
            stopped = self._stop()
            return self._code or code or stopped
        finally:
            self._kill()
            self._selector.close()

    # -- in the thread that watches the signals ---------------------------------------

    def _ask(self, reason: str) -> None:
        self._asked = reason
        if not self._noticed.wait(_NOTICED):  # Writing to the log may block, say.
            for child in self._children:
                child.send(signal.SIGTERM)

    def _end(self, code: int) -> None:
        self._code = (
            code  # The main thread may find that all have ended, and end first.
        )
        for child in self._children:
            child.send(signal.SIGKILL)
        for child in self._children:
            child.wait(_LATER)
        end_process(code)

    def _pass_on(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.up:  # Before that it has no handler, and would end.
                child.send(number)

    # -- in the main thread -----------------------------------------------------------

    def _supervise(self) -> int:
        """Start what does not run; return when there is a reason to stop."""
        while not self._asked:
            for child in self._children:
                child.start_if_due()
            self._listen(LOOK)
            self._kill_blocked()
            for child in self._children:
                code = child.ended()
                if code is not None and self._is_final(child, code):
                    return code
        return 0

    def _is_final(self, child: ChildProcess, code: int) -> bool:
        """Whether a child's end ends us all; if not, when the next one starts."""
        if code in self._again:
            child.due = 0.0
            return False
        if code in _WRONG and not child.up:
            child.failed = True
        if not self._ever_up and all(each.failed for each in self._children):
            logger.error("Process %d could not start: giving up", child.pid)
            return True
        delay = child.again_after()
        logger.warning(
            "Process %d ended (%s); starting another one in %.1f s",
            child.pid,
            _said(code),
            delay,
        )
        return False

    def _kill_blocked(self) -> None:
        for child in self._children:
            if child.kill_if_blocked():
                logger.error(
                    "Process %d: its hub has not run for %.0f s: killed. Its"
                    " messages come again as suspects",
                    child.pid,
                    child.blocked_for,
                )

    def _listen(self, timeout: float) -> None:
        """Hear what the children say."""
        for key, _ in self._selector.select(timeout):
            key.data.hear()
        self._ever_up = self._ever_up or any(child.up for child in self._children)
        self._judge()

    def _judge(self) -> None:
        now = time.monotonic()
        verdict = together({each.name: each.verdict(now) for each in self._children})
        self._verdict = replace(verdict, ready=verdict.ready and not self._asked)
        self._judged_at = now
        self._log.update(verdict.troubles)
        if now >= self._tell_at:
            self._tell_at = now + 1.0
            self._recipients.tell(self._verdict)

    def _stop(self) -> int:
        """Stop all children; the exit code."""
        self._noticed.open()
        if self._listener is not None:
            self._listener.close()
        running = [child for child in self._children if child.running]
        for child in running:
            child.send(signal.SIGTERM)
        if self._asked:
            logger.info("%s", self._asked)
        deadline = time.monotonic() + self._stop_timeout + RESERVE + _LATER
        codes = []
        while running and time.monotonic() < deadline:
            self._listen(LOOK)
            codes += [code for c in running if (code := c.ended()) is not None]
            running = [child for child in running if child.running]
        for child in running:
            logger.error("Process %d does not end: killing it", child.pid)
        return FORCED if running or any(map(_is_unclean, codes)) else 0

    def _kill(self) -> None:
        for child in self._children:
            child.kill()


def _said(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _is_unclean(code: int) -> bool:
    # One that was stopped while it still started had nothing in hand.
    return code not in (0, -signal.SIGTERM)
