"""A server process of a test's own: started, stopped, killed, frozen, started again.

Knows nothing of any broker; `RabbitMQ` and `Redis` say what to run and when it is up.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import typing as t

import psutil

from ..waiting import last
from ..waiting import wait_for

ServerT = t.TypeVar("ServerT", bound="Server")


class ServerError(Exception):
    """A server did not start, or refused a command."""


class Server:
    """One throwaway server; its address stays the same over stop and start."""

    #: The name of the server in messages.
    title: t.ClassVar[str]
    #: Seconds that it may take to start, and to stop cleanly.
    start_timeout: t.ClassVar[float] = 60.0
    stop_timeout: t.ClassVar[float] = 30.0

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> str | None:
        """Return why this server cannot run here, or ``None`` if it can."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        raise NotImplementedError

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _is_ready(self) -> bool:
        raise NotImplementedError

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServerError(f"{self.title} is not running")
        return self._process.pid

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self.begin()
        self.await_ready()

    def begin(self) -> None:
        """Start the server without waiting."""
        if self.running:
            raise ServerError(f"{self.title} is already running")
        self._process = spawn(
            self._command(),
            env=self._environment(),
            folder=self.folder,
            output=self._output,
        )

    def await_ready(self) -> None:
        """Wait until the server answers; end it if it does not."""
        try:
            self._await_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop the server by SIGTERM, and wait until it has ended."""
        self._end(signal.SIGTERM, timeout=self.stop_timeout)

    def kill(self) -> None:
        """Kill the server, as a power cut does."""
        self._end(signal.SIGKILL, timeout=10.0)

    def restart(self, away: float = 0.0) -> None:
        """Stop, wait ``away`` seconds, and start again."""
        self.stop()
        last(away)
        self.start()

    def close(self) -> None:
        """End the server without a clean stop, since its data is thrown away."""
        self.kill()

    def freeze(self) -> None:
        """Let it hang: connections stay open and nothing answers, until `thaw`.

        The signal goes to one thread, and only when that runs next are the others
        stopped, which went on answering meanwhile on a busy machine.
        """
        os.killpg(self.pid, signal.SIGSTOP)
        wait_for(
            lambda: _states(self.pid) == {"T"},
            message=lambda: f"all threads are stopped: {_states(self.pid)}",
        )

    def thaw(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self, seconds: float = 0.0) -> t.Iterator[None]:
        """Freeze the server during a block, which begins after ``seconds``."""
        self.freeze()
        try:
            last(seconds)
            yield
        finally:
            self.thaw()

    @contextlib.contextmanager
    def full_disk(self) -> t.Iterator[None]:
        """For the length of a block, let no file of its grow: every write fails.

        The kernel refuses them (``EFBIG``) as it does on a full disk (``ENOSPC``), and
        needs no disk of a size of its own for that. A server that ends of it, as some
        do, may be started again once the block is left.
        """
        pid = self.pid
        before = resource.prlimit(
            pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY)
        )
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    def output(self) -> str:
        """Return the output of all starts so far."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def __enter__(self: ServerT) -> ServerT:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def _output(self) -> pathlib.Path:
        return self.folder / "output"

    def _await_ready(self) -> None:
        wait_for(
            lambda: not self.running or self._is_ready(),
            self.start_timeout,
            message=lambda: f"{self.title} is up; it printed:\n{self.output()[-4000:]}",
            interval=0.05,
        )
        if not self.running:
            raise ServerError(f"{self.title} ended at its start:\n{self.output()}")

    def _end(self, signum: signal.Signals, *, timeout: float) -> None:
        process, self._process = self._process, None
        if process is not None:
            end(process, signum, timeout=timeout)


def spawn(
    command: t.Sequence[str],
    *,
    env: t.Mapping[str, str],
    folder: pathlib.Path,
    output: pathlib.Path,
) -> subprocess.Popen[bytes]:
    """Start a command in a new process group, which ends with this process."""
    with output.open("ab") as stream:
        return subprocess.Popen(
            [*_ends_with_parent(), *command],
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _ends_with_parent() -> list[str]:
    # A test run that is killed, for example at its deadline, must leave no server.
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def end(
    process: subprocess.Popen[bytes], signum: signal.Signals, *, timeout: float
) -> None:
    """Signal a process group, and wait until all its processes have ended."""
    family = _descendants(process.pid)
    _signal_group(process.pid, signum)
    try:
        process.wait(timeout)
        wait_for(lambda: not any(map(is_alive, family)), timeout=10.0)
    except (subprocess.TimeoutExpired, AssertionError):
        _kill_all(process, family)
        raise ServerError(
            f"{process.args!r} did not end within {timeout:g} s of {signum.name}"
        ) from None


def _states(pid: int) -> set[str]:
    """Return the states of a process's threads."""
    found = set()
    for file in pathlib.Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The name before the state is in brackets, and may contain any character.
            found.add(file.read_text().rpartition(")")[2].split()[0])
    return found


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _signal_group(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signum)
        # A frozen process handles no signal except SIGKILL until it is thawed.
        os.killpg(pid, signal.SIGCONT)


def _kill_all(process: subprocess.Popen[bytes], family: list[psutil.Process]) -> None:
    _signal_group(process.pid, signal.SIGKILL)
    for each in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait(10.0)


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
