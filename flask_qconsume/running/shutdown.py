"""Signals: the first one asks for a stop, the second one ends the process at once."""

from __future__ import annotations

import os
import signal
import sys

import gevent

from ..logs import logger_named
from .event import Event
from .exits import STOPS

logger = logger_named("flask_qconsume.shutdown")


class StopSignals:
    """Waits for SIGTERM or SIGINT, in a process of our own.

    gevent runs the handlers in greenlets, so they may do anything; under somebody
    else's server they would replace the server's own, so only our commands use this.

    :param supervised: Whether another process of ours looks after this one. That one
        decides when it must end at once: a service manager may signal both.
    """

    def __init__(self, *, supervised: bool = False) -> None:
        self.asked = Event()
        self._supervised = supervised
        self._watchers = [gevent.signal_handler(s, self._on, s) for s in STOPS]

    def cancel(self) -> None:
        """Leave the signals alone again."""
        for watcher in self._watchers:
            watcher.cancel()

    def _on(self, number: signal.Signals) -> None:
        if not self.asked.is_set():
            more = "" if self._supervised else "; once more ends at once"
            logger.info("%s: stopping%s", number.name, more)
            self.asked.set()
        elif not self._supervised:
            logger.warning("Second signal: ending at once")
            sys.stderr.flush()
            os._exit(128 + number)
