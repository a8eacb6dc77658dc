"""A child's connection to its supervising process.

:mod:`~.child_process` has the other end.
"""

from __future__ import annotations

import contextlib
import os
import socket

from ..health.verdict import Verdict
from .child_process import FDS_VARIABLE
from .child_process import UP_LINE


class Parent:
    """The supervisor of this process, which gets reports about its health.

    :param control: The socket to the supervising process.
    :param listener: The listening socket that the supervisor's children share, if any.
    """

    def __init__(self, control: socket.socket, listener: socket.socket | None) -> None:
        self._control = control
        self.listener = listener
        #: The part of the last report that has not been sent yet.
        self._rest = b""

    @classmethod
    def from_environment(cls) -> Parent | None:
        """Create a ``Parent`` if a supervisor started this process, else ``None``.

        Call this once. The supervisor's environment variable is removed, so that
        processes started by this process do not count as the supervisor's children.
        """
        fds = os.environ.pop(FDS_VARIABLE, "")
        if not fds:
            return None
        sockets = [socket.socket(fileno=int(fd)) for fd in fds.split(",")]
        for inherited_socket in sockets:
            inherited_socket.set_inheritable(False)
        return cls(sockets[0], sockets[1] if len(sockets) > 1 else None)

    def fileno(self) -> int:
        """The socket's descriptor, which is readable once the supervisor has ended."""
        return self._control.fileno()

    def report_up(self) -> None:
        with contextlib.suppress(OSError):
            self._control.sendall(UP_LINE)

    def report(self, verdict: Verdict) -> None:
        """Send a verdict to the supervisor, from a native thread; never block.

        If the socket accepts only a part of the line, the next call sends the rest
        instead of its own verdict.
        """
        if not self._rest:
            self._rest = verdict.to_json().encode() + b"\n"
        with contextlib.suppress(OSError):
            sent = os.write(self._control.fileno(), self._rest)
            self._rest = self._rest[sent:]
