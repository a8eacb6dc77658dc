"""One place for a child of the supervisor: its process now, and when it gets another.

Must not import gevent: the process that supervises is not patched.
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
from ..health.verdict import Silence
from ..health.verdict import Trouble
from ..health.verdict import Verdict

#: Tells a child its end of the control socket, and the listening socket: ``5,6``.
FDS = "_FLASK_QCONSUME_FDS"

#: What a child sends when it consumes.
UP = b"up\n"

#: Seconds between two looks at the children, where nothing wakes us up before.
LOOK = 0.2

#: A child that ran for so many seconds was fine: its successor need not wait long.
_FINE = 60.0

#: The shortest limit for a child's silence, in seconds: it reports once a second.
SILENT = 3.0


class ChildLimits(t.NamedTuple):
    """Seconds after which something is wrong with a child."""

    #: It has reported how it is, and does so no more.
    silent: float = SILENT
    #: It has been started, and has not reported anything.
    starting: float = 120.0
    #: Its hub has not run, so it is killed; ``None`` if it never is.
    blocked: float | None = None


class ChildProcess:
    """One place for a child: the process that has it now, and when it gets another."""

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        listener: socket.socket | None,
        selector: selectors.BaseSelector,
        limits: ChildLimits,
    ) -> None:
        #: When to start a process, on the monotonic clock, where none runs.
        self.due = 0.0
        #: Whether its process consumes, or did when it ended.
        self.up = False
        #: Whether a process of it has found its own configuration wrong.
        self.failed = False
        self.pid = 0
        self._command = command
        self._environment = environment
        self._listener = listener
        self._selector = selector
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._began = 0.0
        self._backoff = Backoff()
        self._said = b""
        self._verdict: Verdict | None = None
        self._reports = 0
        self._limits = limits
        self._silence = Silence(LOOK)
        #: Seconds since it has reported how it is, or was started.
        self._silent_for = 0.0
        self._killed = False
        self._looked_at = 0.0

    @property
    def name(self) -> str:
        """What to call it."""
        return f"process {self.pid}" if self.running else "a process"

    def verdict(self, now: float) -> Verdict | None:
        """What it said last, unless it runs and does not say anything any more."""
        elapsed, self._looked_at = now - self._looked_at, now
        silent = self._silence.look((self.pid, self.up, self._reports), elapsed)
        self._silent_for = silent
        if not self.running:
            return None
        has_said = self.up or self._verdict is not None
        if not has_said and silent >= self._limits.starting:
            return self._not_live(
                "starting",
                f"it was started {silent:.0f} s ago and does not run consumers yet:"
                " what it imports does not end. 'py-spy dump' shows where.",
            )
        if has_said and silent >= max(SILENT, self._limits.silent):
            return self._not_live(
                "silent",
                f"nothing has been heard of it for {silent:.0f} s: it is halted, or"
                " something in it lets not even threads run.",
            )
        return self._verdict

    def _not_live(self, kind: str, text: str) -> Verdict:
        return Verdict(False, False, (Trouble(kind, "", text, fatal=True),))

    @property
    def blocked_for(self) -> float:
        """Seconds for which its hub has not run since it consumes, as of the last look.

        It is not counted while the child starts: hooks may load what takes long.
        """
        if not self.up:
            return 0.0
        silent = self._silent_for if self._silent_for >= SILENT else 0.0
        return silent + (self._verdict.blocked_for if self._verdict else 0.0)

    def kill_if_blocked(self) -> bool:
        """Kill it, once, where its hub has not run for longer than it may."""
        limit = self._limits.blocked
        if self._killed or limit is None or self.blocked_for < limit:
            return False
        self._killed = True
        self.send(signal.SIGKILL)
        return True

    @property
    def running(self) -> bool:
        """Whether it has a process."""
        return self._process is not None

    def start_if_due(self) -> None:
        """Start a process where none runs and it is time for one."""
        if self._process is None and time.monotonic() >= self.due:
            self._start()

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        # What the child forks has the other end, too, and may keep it open.
        self._control.setblocking(False)
        with theirs:
            fds = [theirs.fileno()]
            fds += [self._listener.fileno()] if self._listener is not None else []
            self._process = subprocess.Popen(
                self._command,
                env={**self._environment, FDS: ",".join(map(str, fds))},
                pass_fds=fds,
                # A Ctrl-C is for us: we tell the children.
                start_new_session=True,
            )
        self.pid, self.up, self._began = self._process.pid, False, time.monotonic()
        self._killed = False
        self._selector.register(self._control, selectors.EVENT_READ, self)

    def hear(self) -> None:
        """Read what the child says: that it is up, how it is, or that it ends."""
        if self._control is None:
            return
        try:
            said = self._control.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        self._understand(said)
        if not said:
            self._selector.unregister(self._control)
            self._control.close()
            self._control = None

    def _understand(self, said: bytes) -> None:
        *lines, self._said = (self._said + said).split(b"\n")
        for line in lines:
            if line == UP.strip():
                self.up = True
                continue
            with contextlib.suppress(ValueError):
                self._verdict = Verdict.from_json(line.decode())
                self._reports += 1

    def ended(self) -> int | None:
        """The exit code, once, when the process has ended."""
        if self._process is None:
            return None
        code = self._process.poll()
        if code is None:
            return None
        if self._control is not None:
            self.hear()
        self._forget()
        if code < 0:
            self._kill_group()
        return code

    def _kill_group(self) -> None:
        """Kill what the process has started, and what would wait for it for ever."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def again_after(self) -> float:
        """The seconds until the next process starts here."""
        if time.monotonic() - self._began > _FINE:
            self._backoff.reset()
        delay = self._backoff.next()
        self.due = time.monotonic() + delay
        return delay

    def send(self, number: signal.Signals) -> None:
        """Signal the process, from any thread; SIGKILL to all that it has started."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        if number is signal.SIGKILL:
            self._kill_group()
        else:
            process.send_signal(number)

    def wait(self, timeout: float) -> None:
        """Wait for the end of the process, so many seconds at the most."""
        process = self._process
        with contextlib.suppress(subprocess.TimeoutExpired):
            if process is not None:
                process.wait(timeout)

    def kill(self) -> None:
        """End the process at once."""
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._forget()

    def _forget(self) -> None:
        self._process, self._verdict, self._said = None, None, b""
        if self._control is not None:
            self._selector.unregister(self._control)
            self._control.close()
            self._control = None
