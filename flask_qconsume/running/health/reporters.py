"""Whoever is told of each verdict: a file, systemd, the supervising process.

All of it is called in a thread of the operating system and must not wait, nor import
gevent.
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

logger = get_logger("flask_qconsume.watch")

_UNTOLD = "The worker's health cannot be told: %s. It is tried again."

#: Where systemd wants to be told, and how often, in microseconds.
NOTIFY_SOCKET = "NOTIFY_SOCKET"
WATCHDOG = ("WATCHDOG_USEC", "WATCHDOG_PID")


class Recipients:
    """Functions that are called with each verdict; one that fails is logged once."""

    def __init__(self) -> None:
        self._all: list[Callable[[Verdict], object]] = []
        self._failed: set[Callable[[Verdict], object]] = set()

    def add(self, recipient: Callable[[Verdict], object]) -> None:
        """Call it with each verdict from now on."""
        self._all.append(recipient)

    def tell(self, verdict: Verdict) -> None:
        """Call all of them."""
        for recipient in self._all:
            try:
                recipient(verdict)
            except Exception as error:
                if recipient not in self._failed:
                    self._failed.add(recipient)
                    text = escape(error)
                    native_threads.run_in_thread("health", logger.error, _UNTOLD, text)


class HealthFile:
    """A file that is written anew while the worker lives, and gets old otherwise.

    It replaces nothing but a verdict of its own kind, or an empty file.

    :raises WorkerError: if it cannot be written, or is something else.
    """

    def __init__(self, path: str) -> None:
        self._path = pathlib.Path(path)
        self._draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._check()
            self._write("")
        except (OSError, ValueError) as error:
            raise WorkerError(
                f"Cannot write the health file '{path}' ({error}). Give '--health-file'"
                " a path that nothing else uses, in a folder that this user may write"
                " to."
            ) from error

    def __call__(self, verdict: Verdict) -> None:
        """Write the verdict, whole, if it is a good one."""
        if verdict.live:
            self._write(verdict.to_json() + "\n")
            self._check()
            self._draft.replace(self._path)

    def close(self) -> None:
        """Remove it: nothing lives here any more."""
        with contextlib.suppress(OSError):
            self._draft.unlink()
        with contextlib.suppress(OSError, ValueError):
            self._check()
            self._path.unlink()

    def _check(self) -> None:
        """Raise ``ValueError`` unless the file is missing, empty or a verdict."""
        with contextlib.suppress(FileNotFoundError):
            # Not followed: what a link leads to is not to be replaced either.
            if not stat.S_ISREG(self._path.lstat().st_mode):
                raise ValueError("there is something else than a plain file")
            text = self._path.read_text("utf-8", "replace")
            if text.strip() and not _is_verdict(text):
                raise ValueError("there is a file with other contents")

    def _write(self, text: str) -> None:
        # In a folder that others may write to, the draft's name may be taken by a link.
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
    """Tells systemd that the service is ready, and feeds its watchdog while it lives.

    :param address: What systemd has put into ``NOTIFY_SOCKET``.
    """

    def __init__(self, address: str) -> None:
        # An '@' stands for the zero byte that abstract addresses begin with.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        kind = get_unpatched("socket", "socket")
        self._socket = kind(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Systemd | None:
        """For the service that we are; ``None`` where we are none.

        Taken out, so that what we start in turn does not speak for us.
        """
        address = environment.pop(NOTIFY_SOCKET, "")
        for name in WATCHDOG:
            environment.pop(name, None)
        return cls(address) if address else None

    def ready(self) -> None:
        """Tell that the start is over. A broker that is away does not delay it."""
        self._say("READY=1")

    def __call__(self, verdict: Verdict) -> None:
        """Feed the watchdog, if the verdict is a good one."""
        if verdict.live:
            self._say("WATCHDOG=1")

    def close(self) -> None:
        """Tell that it stops."""
        self._say("STOPPING=1")
        self._socket.close()

    def _say(self, word: str) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto(word.encode(), self._address)


class Report:
    """Tells the supervising process, over the control socket.

    :param control: The socket's descriptor, which does not block.
    """

    def __init__(self, control: int) -> None:
        self._control = control
        self._rest = b""

    def __call__(self, verdict: Verdict) -> None:
        """Send the verdict as one line; what it does not take now follows next time."""
        if not self._rest:
            self._rest = verdict.to_json().encode() + b"\n"
        with contextlib.suppress(OSError):
            sent = os.write(self._control, self._rest)
            self._rest = self._rest[sent:]
