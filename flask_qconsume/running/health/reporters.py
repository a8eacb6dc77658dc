"""Reports the verdicts on a worker's health to a file, to systemd, and to functions.

Outlets are called in a native thread. They must not wait, nor import gevent.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import stat
from collections.abc import Callable
from collections.abc import MutableMapping

from ... import native_threads
from ...errors import WorkerError
from ...logs import get_logger
from ...native_threads import get_unpatched
from ...text import escape
from .verdict import Verdict

logger = get_logger("flask_qconsume.watchdog")

#: Environment variables that systemd sets: the socket for notifications, and the
#: interval and process of its watchdog.
_NOTIFY_SOCKET = "NOTIFY_SOCKET"
_WATCHDOG = ("WATCHDOG_USEC", "WATCHDOG_PID")


_FAILED_TEXT = "The worker's health cannot be reported: %s. It is tried again."


class Reporter:
    """Calls functions (outlets) with each verdict, and logs when one begins to fail."""

    def __init__(self) -> None:
        self._outlets: list[Callable[[Verdict], object]] = []
        self._failed: set[Callable[[Verdict], object]] = set()

    def add_outlet(self, outlet: Callable[[Verdict], object]) -> None:
        self._outlets.append(outlet)

    def report(self, verdict: Verdict) -> None:
        for outlet in self._outlets:
            try:
                outlet(verdict)
            except Exception as error:
                if outlet not in self._failed:
                    self._failed.add(outlet)
                    native_threads.run_in_thread(
                        "health", logger.error, _FAILED_TEXT, escape(error)
                    )


class HealthFile:
    """A file that is written each second while the worker is live.

    An existing file is replaced only if it is empty or holds an earlier verdict.

    :raises WorkerError: if the file cannot be written, or must not be replaced.
    """

    def __init__(self, path: str) -> None:
        self._path = pathlib.Path(path)
        self._draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._check_replaceable()
            self._write("")
        except (OSError, ValueError) as error:
            raise WorkerError(
                f"Cannot write the health file '{path}' ({error}). Give '--health-file'"
                " a path that nothing else uses, in a folder that this user may write"
                " to."
            ) from error

    def __call__(self, verdict: Verdict) -> None:
        """Write the verdict into the file, if the worker is live."""
        if verdict.live:
            self._write(verdict.to_json() + "\n")
            self._check_replaceable()
            self._draft.replace(self._path)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._draft.unlink()
        with contextlib.suppress(OSError, ValueError):
            self._check_replaceable()
            self._path.unlink()

    def _check_replaceable(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            # A symbolic link is not followed, since its target must not be replaced
            # either.
            if not stat.S_ISREG(self._path.lstat().st_mode):
                raise ValueError("it is not a plain file")
            text = self._path.read_text("utf-8", "replace")
            if text.strip() and not _is_verdict(text):
                raise ValueError("a file with other contents is there")

    def _write(self, text: str) -> None:
        # In a shared folder, a symbolic link may have the draft's name; removing it
        # first keeps the write from following it.
        self._draft.unlink(missing_ok=True)
        with self._draft.open("x") as file:
            file.write(text)


def _is_verdict(text: str) -> bool:
    try:
        Verdict.from_json(text)
    except ValueError:
        return False
    return True


class Systemd:
    """Tells systemd that the service is ready, is live, or is stopping.

    :param address: The value of systemd's variable ``NOTIFY_SOCKET``.
    """

    def __init__(self, address: str) -> None:
        # Abstract addresses begin with a zero byte, which systemd writes as '@'.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        kind = get_unpatched("socket", "socket")
        self._socket = kind(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Systemd | None:
        """Create a ``Systemd`` if systemd started this process, else return ``None``.

        Systemd's environment variables are removed, so that child processes do not
        notify systemd.
        """
        address = environment.pop(_NOTIFY_SOCKET, "")
        for name in _WATCHDOG:
            environment.pop(name, None)
        return cls(address) if address else None

    def ready(self) -> None:
        """Report that the service has started, whether or not the broker answers."""
        self._send("READY=1")

    def __call__(self, verdict: Verdict) -> None:
        """Reset systemd's watchdog, if the worker is live."""
        if verdict.live:
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """Report that the service is stopping."""
        self._send("STOPPING=1")
        self._socket.close()

    def _send(self, word: str) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto(word.encode(), self._address)
