"""One child of the supervisor: its current process, and when the next one starts.

Must not import gevent: the supervising process is not patched.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import time
import typing as t
from collections.abc import Mapping

from ..backoff import Backoff
from ..health.condition_timer import ConditionTimer
from ..health.verdict import Problem
from ..health.verdict import Verdict

#: Environment variable with the file descriptors that a child inherits, such as
#: ``5,6``: its end of the control socket, and the listening socket.
FDS_VARIABLE = "_FLASK_QCONSUME_FDS"

#: Line that a child sends to the supervisor once it consumes.
UP_LINE = b"up\n"

#: Seconds between two checks of the children, unless one of them reports before.
LOOK_SECONDS = 0.2

#: If a child ran for more seconds, the delays before restarts begin with the shortest.
_GOOD_AFTER_SECONDS = 60.0

#: The shortest time in seconds without a report that is a problem; a child reports once
#: a second.
MIN_SILENT_SECONDS = 3.0


class ChildLimits(t.NamedTuple):
    """The numbers of seconds after which a child process is not live, or is killed."""

    #: Seconds since its last report.
    silent: float = MIN_SILENT_SECONDS
    #: Seconds since its start, if it has not reported anything.
    starting: float = 120.0
    #: Seconds for which its event loop has not run, after which the child is killed;
    #: ``None`` for never.
    blocked: float | None = None


class ChildProcess:
    """One of the supervisor's children: a process, and its replacements."""

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        listener: socket.socket | None,
        selector: selectors.BaseSelector,
        limits: ChildLimits,
    ) -> None:
        #: When to start the next process, on :func:`time.monotonic`'s clock.
        self.due = 0.0
        #: Whether its process is consuming, or was when it ended.
        self.up = False
        #: Whether one of its processes ended because of a configuration error.
        self.failed = False
        self.pid = 0
        self._command = command
        self._environment = environment
        self._listener = listener
        self._selector = selector
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._started_at = 0.0
        self._backoff = Backoff()
        self._incomplete_line = b""
        self._verdict: Verdict | None = None
        self._reports = 0
        self._limits = limits
        self._silence = ConditionTimer(LOOK_SECONDS)
        #: Seconds since its last report, or since its start.
        self._silent_for = 0.0
        self._killed = False
        self._looked_at = 0.0

    @property
    def name(self) -> str:
        return f"process {self.pid}" if self.running else "a process"

    @property
    def running(self) -> bool:
        """True from a process's start until :meth:`take_exit_code` returns its code."""
        return self._process is not None

    # -- its health -------------------------------------------------------------------

    def check(self, now: float) -> Verdict | None:
        """Return the verdict on the child, from its own reports.

        :returns: The last reported verdict; a bad verdict if reports are overdue;
            ``None`` if the child does not run, or has not reported yet.
        """
        elapsed, self._looked_at = now - self._looked_at, now
        state = (self.pid, self.up, self._reports)
        silent = self._silent_for = self._silence.look([state], elapsed)
        if not self.running:
            return None
        has_reported = self.up or self._verdict is not None
        if not has_reported and silent >= self._limits.starting:
            return _not_live(
                "starting",
                f"it was started {silent:.0f} s ago and does not run consumers yet:"
                " importing the app does not end. 'py-spy dump' shows where.",
            )
        if has_reported and silent >= max(MIN_SILENT_SECONDS, self._limits.silent):
            return _not_live(
                "silent",
                f"it has not reported for {silent:.0f} s: the process is suspended, or"
                " code in it keeps even its threads from running.",
            )
        return self._verdict

    @property
    def blocked_for(self) -> float:
        """Seconds for which the child's event loop has been blocked.

        Time before the child consumes does not count, since ``before_worker`` hooks may
        block for long.
        """
        if not self.up:
            return 0.0
        silent = self._silent_for if self._silent_for >= MIN_SILENT_SECONDS else 0.0
        return silent + (self._verdict.blocked_for if self._verdict else 0.0)

    def kill_if_blocked(self) -> bool:
        """Kill the child if its event loop is blocked for too long."""
        limit = self._limits.blocked
        if self._killed or limit is None or self.blocked_for < limit:
            return False
        self._killed = True
        self.send(signal.SIGKILL)
        return True

    # -- its process ------------------------------------------------------------------

    def start_if_due(self) -> None:
        if self._process is None and time.monotonic() >= self.due:
            self._start()

    def _start(self) -> None:
        self._control, child_socket = socket.socketpair()
        # Must not block: processes that the child forks may keep the other end open.
        self._control.setblocking(False)
        with child_socket:
            fds = [child_socket.fileno()]
            fds += [self._listener.fileno()] if self._listener is not None else []
            self._process = subprocess.Popen(
                self._command,
                env={**self._environment, FDS_VARIABLE: ",".join(map(str, fds))},
                pass_fds=fds,
                # Ctrl-C is for the supervisor only, which then stops the children.
                start_new_session=True,
            )
        self.pid, self.up, self._started_at = self._process.pid, False, time.monotonic()
        self._killed = False
        self._selector.register(self._control, selectors.EVENT_READ, self)

    def read_reports(self) -> None:
        """Read the reports that the child has sent since the last call."""
        if self._control is None:
            return
        try:
            received = self._control.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        self._parse_reports(received)
        if not received:
            self._close_control()

    def _parse_reports(self, received: bytes) -> None:
        *lines, self._incomplete_line = (self._incomplete_line + received).split(b"\n")
        for line in lines:
            if line == UP_LINE.strip():
                self.up = True
                continue
            with contextlib.suppress(ValueError):
                self._verdict = Verdict.from_json(line.decode())
                self._reports += 1

    def take_exit_code(self) -> int | None:
        """Return the exit code when the process has ended, once; else ``None``."""
        if self._process is None:
            return None
        code = self._process.poll()
        if code is None:
            return None
        if self._control is not None:
            self.read_reports()
        self._forget_process()
        if code < 0:
            self._kill_group()
        return code

    def schedule_restart(self) -> float:
        """Choose when the next process starts; return the seconds until then."""
        if time.monotonic() - self._started_at > _GOOD_AFTER_SECONDS:
            self._backoff.reset()
        delay = self._backoff.next()
        self.due = time.monotonic() + delay
        return delay

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the child process; safe in any thread.

        SIGKILL also goes to all processes that the child has started.
        """
        process = self._process
        if process is None or process.poll() is not None:
            return
        if number is signal.SIGKILL:
            self._kill_group()
        else:
            process.send_signal(number)

    def wait(self, timeout: float) -> None:
        process = self._process
        with contextlib.suppress(subprocess.TimeoutExpired):
            if process is not None:
                process.wait(timeout)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._forget_process()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _forget_process(self) -> None:
        self._process, self._verdict, self._incomplete_line = None, None, b""
        self._close_control()

    def _close_control(self) -> None:
        if self._control is not None:
            self._selector.unregister(self._control)
            self._control.close()
            self._control = None


def _not_live(kind: str, text: str) -> Verdict:
    return Verdict(False, False, (Problem(kind, "", text, fatal=True),))
