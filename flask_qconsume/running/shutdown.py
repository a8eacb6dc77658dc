"""Signals: the first one asks for a stop, the second one ends the process at once."""

from __future__ import annotations

import logging
import os
import signal
import sys

import gevent
from gevent.event import Event

logger = logging.getLogger("flask_qconsume.shutdown")

#: The exit code of a stop that had to give back work which handlers had begun.
FORCED = 3

STOPS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Waits for SIGTERM or SIGINT, in a process of our own.

    gevent runs the handlers in greenlets, so they may do anything; under somebody
    else's server they would replace the server's own, so only our commands use this.
    """

    def __init__(self) -> None:
        self.asked = Event()
        self._watchers = [gevent.signal_handler(s, self._on, s) for s in STOPS]

    def cancel(self) -> None:
        """Leave the signals alone again."""
        for watcher in self._watchers:
            watcher.cancel()

    def _on(self, number: signal.Signals) -> None:
        if self.asked.is_set():
            logger.warning("Second signal: ending at once")
            sys.stderr.flush()
            os._exit(128 + number)
        logger.info("%s: stopping; once more ends at once", number.name)
        self.asked.set()
