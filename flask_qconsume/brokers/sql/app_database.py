"""Objects that the links, the publisher and the dead letters of one app share."""

from __future__ import annotations

from ...broker.group_commit import GroupCommit
from ...broker.link import Link
from ...settings import Settings
from .database import Database
from .database import Step
from .housekeeping import Housekeeper
from .leases import LinkLeases
from .statements import CLOSE_LINK
from .statements import GIVE_BACK_ALL
from .watcher import Watcher

#: Callers that may lead a group commit at the same time, each with a transaction.
_MAX_LEADERS = 2
_NOT_DECLARED = object()


class AppDatabase:
    """One app's use of a database in this process; a forked child creates its own."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.watcher = Watcher(database)
        self.housekeeper = Housekeeper(database, self.watcher)
        self.group_commit = GroupCommit(_MAX_LEADERS)
        self.keep_alive_interval = min(settings.lease / 3, Link.keep_alive_interval)
        self.leases = LinkLeases(database, settings.lease, self.keep_alive_interval)
        #: The database in which this process has declared the topology.
        self._declared_in: object = _NOT_DECLARED
        #: Closed links whose messages are still theirs, since the database was away.
        self._unreleased_links: set[int] = set()

    @property
    def is_declared(self) -> bool:
        """True if this process has declared the topology in the present database."""
        return self._declared_in == self.database.identity

    def note_declared(self) -> None:
        """Remember that this process has declared the topology."""
        self._declared_in = self.database.identity

    def give_back(self, link: int) -> None:
        """Give back all messages of a link, unmarked; remember the link if that fails.

        :raises BrokerError: if the database is away; :meth:`retry_give_back` tries
            again.
        """
        self._unreleased_links.add(link)
        self.database.write(
            [Step(GIVE_BACK_ALL, {"me": link}), Step(CLOSE_LINK, {"me": link})]
        )
        self._unreleased_links.discard(link)

    def retry_give_back(self) -> None:
        """Give back the messages of links that could not do so when they were closed.

        :raises BrokerError: if the database is away; the links are kept.
        """
        for link in list(self._unreleased_links):
            self.give_back(link)

    def close(self) -> None:
        """Close all connections; callers that wait for the database are woken."""
        self.watcher.stop()
        self.database.close()
        self.watcher.join()
