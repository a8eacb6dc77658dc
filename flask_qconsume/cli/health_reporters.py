"""Reports the health of a process: by an HTTP endpoint, a file, or systemd."""

from __future__ import annotations

import contextlib
import os
import typing as t
from collections.abc import Callable

from ..logs import get_logger
from ..running.health.endpoint import Endpoint
from ..running.health.endpoint import Scrape
from ..running.health.reporters import HealthFile
from ..running.health.reporters import Systemd
from ..running.health.verdict import Verdict
from ..running.sockets import listen

logger = get_logger("flask_qconsume.checks")


class HealthSource(t.Protocol):
    """The attributes by which a watchdog or a supervisor tells its verdicts."""

    @property
    def verdict(self) -> Verdict:
        """The latest verdict; safe in any thread."""

    def add_outlet(self, outlet: Callable[[Verdict], object]) -> None:
        """Add a function that is called with each verdict."""


class HealthReporters:
    """A context manager that reports the health of this process.

    :param address: ``HOST:PORT`` of the HTTP endpoint; ``None`` for no endpoint.
    :param path: Path of the health file; ``None`` for no file.
    :param systemd: Connection to systemd, unless it is read from the environment.
    :param scrape: Answers ``/metrics`` at the address, if there are metrics.
    :raises WorkerError: if the address or the file cannot be used.
    """

    def __init__(
        self,
        address: str | None,
        path: str | None,
        watched: HealthSource,
        systemd: Systemd | None = None,
        scrape: Scrape | None = None,
    ) -> None:
        self._stack = contextlib.ExitStack()
        self._systemd = systemd or Systemd.from_environment(os.environ)
        if self._systemd is not None:
            self._stack.callback(self._systemd.close)
            watched.add_outlet(self._systemd)
        if path:
            file = HealthFile(path)
            self._stack.callback(file.close)
            watched.add_outlet(file)
        self._endpoint = None
        if address:
            self._endpoint = Endpoint(listen(address), lambda: watched.verdict, scrape)
            self._stack.callback(self._endpoint.close)

    def __enter__(self) -> HealthReporters:
        if self._endpoint is not None:
            self._endpoint.start()
            logger.info("Answering checks on %s", self._endpoint.url)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def notify_ready(self) -> None:
        """Tell systemd that the service has started."""
        if self._systemd is not None:
            self._systemd.ready()
