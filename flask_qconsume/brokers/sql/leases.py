"""Leases of all links of one process, renewed by one statement."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection

from ...broker.publish_request import copy_error
from ...errors import BrokerError
from . import statements
from .database import CALL_TIMEOUT_SECONDS
from .database import Database
from .database import Step


class Renewal:
    """One statement that renews leases; links that call meanwhile share its result.

    :param leader: The number of the link that executes it.
    :param links: The numbers of all links whose leases it renews.
    """

    def __init__(self, leader: int, links: Collection[int]) -> None:
        self.leader = leader
        self.began = time.monotonic()
        #: The numbers of links whose leases had ended.
        self.lost: frozenset[int] = frozenset()
        self._links = list(links)
        self._ended = threading.Event()
        self._error: BrokerError | None = None

    def run(self, database: Database, lease: float) -> None:
        """Renew the leases.

        :raises BrokerError: if the database is away.
        """
        ids = {"ids": self._links}
        try:
            step = Step(statements.RENEW_LINKS, {**ids, "lease": lease})
            (renewed,) = database.write([step])
            if renewed.changed < len(self._links):
                found = database.read(statements.FIND_LINKS, ids)
                self.lost = frozenset(self._links) - {number for (number,) in found}
        except BrokerError as error:
            self._error = error
            raise
        finally:
            self._ended.set()

    def covers(self, link: int) -> bool:
        """Return whether this statement renews the lease of a link."""
        return link in self._links

    def wait(self) -> None:
        """Wait until the leader has renewed the leases.

        :raises BrokerError: if that failed.
        """
        self._ended.wait(CALL_TIMEOUT_SECONDS)
        if self._error is not None:
            raise copy_error(self._error)


class LinkLeases:
    """The leases of this process's links.

    If each link renewed its own lease, every 10 seconds, an idle process with a hundred
    links would commit ten times a second.

    :param lease: Seconds for which a renewed lease lasts.
    :param interval: Seconds between two calls of :meth:`renew` for each link.
    """

    def __init__(self, database: Database, lease: float, interval: float) -> None:
        self._database = database
        self._lease = lease
        self._interval = interval
        self._lock = threading.Lock()
        #: When each link called :meth:`renew` last, by :func:`time.monotonic`.
        self._asked: dict[int, float] = {}
        self._renewal: Renewal | None = None

    def renew(self, link: int) -> Renewal:
        """Renew the lease of a link, and those of other links that call regularly.

        :raises BrokerError: if the database is away.
        """
        with self._lock:
            self._asked[link] = time.monotonic()
            renewal, leads = self._find_renewal(link)
        if not leads:
            renewal.wait()
            return renewal
        try:
            renewal.run(self._database, self._lease)
        except BaseException:
            with self._lock:
                self._renewal = None
            raise
        return renewal

    def discard(self, link: int) -> None:
        """Forget a link that is being closed."""
        with self._lock:
            self._asked.pop(link, None)

    def _find_renewal(self, link: int) -> tuple[Renewal, bool]:
        """Return the renewal for a link, and whether the link has to run it."""
        now = time.monotonic()
        last = self._renewal
        is_recent = last is not None and now < last.began + self._interval / 2
        if last is not None and is_recent and last.covers(link):
            return last, False
        # A link whose own calls have ceased lets its lease end.
        active = [n for n, at in self._asked.items() if now < at + 2 * self._interval]
        self._renewal = Renewal(link, active)
        return self._renewal, True
