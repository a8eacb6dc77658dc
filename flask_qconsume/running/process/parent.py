"""The process that supervises this one, as seen from here; see ``processes``."""

from __future__ import annotations

import contextlib
import os
import socket

from ..health.reporters import Report
from .child_process import FDS
from .child_process import UP


class Parent:
    """Tells the supervising process that we are up, and how we are."""

    def __init__(self, control: socket.socket, listener: socket.socket | None) -> None:
        self._control = control
        #: The listening socket that it shares with us, if there is one.
        self.listener = listener

    @classmethod
    def from_environment(cls) -> Parent | None:
        """The process that started us to supervise us; ``None`` if nobody did.

        Asked once: what we start in turn must not take itself for its child.
        """
        fds = os.environ.pop(FDS, "")
        if not fds:
            return None
        sockets = [socket.socket(fileno=int(fd)) for fd in fds.split(",")]
        for each in sockets:
            each.set_inheritable(False)
        return cls(sockets[0], sockets[1] if len(sockets) > 1 else None)

    def fileno(self) -> int:
        """The control socket, which ends with the supervising process."""
        return self._control.fileno()

    @property
    def report(self) -> Report:
        """Tells it how we are."""
        return Report(self._control.fileno())

    def up(self) -> None:
        """Say that we consume."""
        with contextlib.suppress(OSError):
            self._control.sendall(UP)
