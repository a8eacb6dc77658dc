"""The process that supervises this one, as seen from here; see ``processes``."""

from __future__ import annotations

import contextlib
import os
import socket

import gevent
from gevent.socket import wait_read

from ..logs import logger_named
from .event import Event
from .notices import Report
from .processes import FDS
from .processes import UP

logger = logger_named("flask_qconsume.parent")


class Parent:
    """Tells the supervising process that we are up, and notices its end."""

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

    @property
    def report(self) -> Report:
        """Tells it how we are."""
        return Report(self._control.fileno())

    def up(self) -> None:
        """Say that we consume."""
        with contextlib.suppress(OSError):
            self._control.sendall(UP)

    def watch(self, asked: Event) -> None:
        """Ask for a stop, in the background, when the supervising process is gone."""
        gevent.spawn(self._watch, asked)

    def _watch(self, asked: Event) -> None:
        wait_read(self._control.fileno())
        if not asked.is_set():
            logger.warning("The supervising process is gone: stopping")
            asked.set()
