"""Several worker processes under one that starts them, restarts them and stops them.

The children are fresh interpreters, not forks: nothing is shared but the listening
socket. Must not import gevent: the process that supervises is not patched.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from types import FrameType

from ..logs import logger_named
from .backoff import Backoff
from .exits import FORCED
from .exits import RESERVE
from .exits import STOPS
from .health import Silence
from .health import Trouble
from .health import Verdict
from .health import together

logger = logger_named("flask_qconsume.processes")

#: Tells a child its end of the control socket, and the listening socket: ``5,6``.
FDS = "_FLASK_QCONSUME_FDS"

#: What a child sends when it consumes.
UP = b"up\n"

#: Seconds between two looks at the children, where nothing wakes us up before.
_LOOK = 0.2

#: A child that ran for so many seconds was fine: its successor need not wait long.
_FINE = 60.0

#: The shortest limit for a child's silence, in seconds: it reports once a second.
_SILENT = 3.0

#: Exit codes of a process that finds its own configuration wrong.
_WRONG = (1, 2)


class Supervisor:
    """Keeps so many children running until it is asked to stop.

    :param command: What to run, with an environment.
    :param listener: A listening socket that all children share.
    :param stop_timeout: Seconds that a child's stop waits for its handlers.
    :param silent_after: Seconds after which a child that reported how it is, and does
        so no more, is not live.
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
        silent_after: float = _SILENT,
        again: Collection[int] = (),
    ) -> None:
        self._stop_timeout = stop_timeout
        self._listener = listener
        self._again = again
        self._selector = selectors.DefaultSelector()
        self._children = [
            _Child(
                list(command),
                environment,
                listener,
                self._selector,
                max(_SILENT, silent_after),
            )
            for _ in range(count)
        ]
        self._signals = 0
        self._last_signal = signal.SIGTERM
        self._ever_up = False
        self._told: list[Callable[[Verdict], object]] = []
        self._tell_at = 0.0
        #: What is to be answered for all children; any thread may read it.
        self.verdict = Verdict(live=True, ready=False)

    def tell(self, told: Callable[[Verdict], object]) -> None:
        """Have a function called with the verdict about all children, each second."""
        self._told.append(told)

    def run(self) -> int:
        """Supervise until a signal; the exit code."""
        before = {number: signal.signal(number, self._on) for number in STOPS}
        try:
            code = self._supervise()
            stopped = self._stop()
            return code or stopped
        finally:
            self._kill()
            self._selector.close()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on(self, number: int, frame: FrameType | None) -> None:
        # Only counts: a handler of Python's may run between any two instructions.
        self._signals += 1
        self._last_signal = signal.Signals(number)

    def _supervise(self) -> int:
        """Start what does not run; return when there is a reason to stop."""
        while not self._signals:
            for child in self._children:
                child.start_if_due()
            self._listen(_LOOK)
            for child in self._children:
                code = child.ended()
                if code is not None and self._is_final(child, code):
                    return code
        logger.info("%s: stopping all; once more ends at once", self._last_signal.name)
        return 0

    def _is_final(self, child: _Child, code: int) -> bool:
        """Whether a child's end ends us all; if not, when the next one starts."""
        if code in self._again:
            child.due = 0.0
            return False
        if code in _WRONG and not self._ever_up and not child.up:
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

    def _listen(self, timeout: float) -> None:
        """Hear what the children say."""
        for key, _ in self._selector.select(timeout):
            key.data.hear()
        self._ever_up = self._ever_up or any(child.up for child in self._children)
        self._judge()

    def _judge(self) -> None:
        now = time.monotonic()
        verdicts = {child.name: child.verdict(now) for child in self._children}
        verdict = together(verdicts)
        self.verdict = Verdict(
            verdict.live, verdict.ready and not self._signals, verdict.troubles
        )
        if now >= self._tell_at:
            self._tell_at = now + 1.0
            for told in self._told:
                self._try(told)

    def _try(self, told: Callable[[Verdict], object]) -> None:
        try:
            told(self.verdict)
        except OSError as error:
            logger.error("The health cannot be told: %s", error)

    def _stop(self) -> int:
        if self._listener is not None:
            self._listener.close()
        signals = self._signals
        running = [child for child in self._children if child.running]
        for child in running:
            child.terminate()
        deadline = time.monotonic() + self._stop_timeout + RESERVE
        codes = []
        while running and time.monotonic() < deadline and self._signals == signals:
            self._listen(_LOOK)
            codes += [code for c in running if (code := c.ended()) is not None]
            running = [child for child in running if child.running]
        if self._signals != signals:
            logger.warning("Second signal: ending at once")
            return 128 + self._last_signal
        for child in running:
            logger.error("Process %d does not end: killing it", child.pid)
        return FORCED if running or any(map(_is_unclean, codes)) else 0

    def _kill(self) -> None:
        for child in self._children:
            child.kill()


class _Child:
    """One place for a child: the process that has it now, and when it gets another."""

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        listener: socket.socket | None,
        selector: selectors.BaseSelector,
        silent_after: float,
    ) -> None:
        #: When to start a process, on the monotonic clock, where none runs.
        self.due = 0.0
        #: Whether its process consumes, or did when it ended.
        self.up = False
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
        self._silent_after = silent_after
        self._silence = Silence(_LOOK)
        self._looked_at = 0.0

    @property
    def name(self) -> str:
        """What to call it."""
        return f"process {self.pid}" if self.running else "a process"

    def verdict(self, now: float) -> Verdict | None:
        """What it said last, unless it runs and does not say anything any more."""
        elapsed, self._looked_at = now - self._looked_at, now
        silent = self._silence.look((self.pid, self._reports), elapsed)
        if self._verdict is None or silent < self._silent_after:
            return self._verdict
        text = (
            f"nothing has been heard of it for {silent:.0f} s: it is halted, or"
            " something in it lets not even threads run."
        )
        return Verdict(False, False, (Trouble("silent", "", text),))

    @property
    def running(self) -> bool:
        return self._process is not None

    def start_if_due(self) -> None:
        if self._process is None and time.monotonic() >= self.due:
            self._start()

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
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
        self._selector.register(self._control, selectors.EVENT_READ, self)

    def hear(self) -> None:
        """Read what the child says: that it is up, how it is, or that it ends."""
        if self._control is None:
            return
        try:
            said = self._control.recv(65_536)
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
        return code

    def again_after(self) -> float:
        """The seconds until the next process starts here."""
        if time.monotonic() - self._began > _FINE:
            self._backoff.reset()
        delay = self._backoff.next()
        self.due = time.monotonic() + delay
        return delay

    def terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._forget()

    def _forget(self) -> None:
        self._process, self._verdict, self._said = None, None, b""
        if self._control is not None:
            self._selector.unregister(self._control)
            self._control.close()
            self._control = None


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
