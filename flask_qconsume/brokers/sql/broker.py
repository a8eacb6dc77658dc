"""The broker in SQL tables; a subclass opens the database."""

from __future__ import annotations

import typing as t
from collections.abc import Sequence

import sqlalchemy as sa

from ...broker.base import Broker
from ...broker.base import QueueStatus
from ...broker.base import SuspectsStatus
from ...broker.checks import check_messages
from ...broker.dead_letters import DeadLetters
from ...broker.link import Lane
from ...broker.link import Link
from ...broker.topology import Binding
from ...broker.topology import QueuePlan
from ...broker.topology import Topology
from ...errors import BrokerError
from ...first_use import PerProcess
from ...logs import get_logger
from ...message import Outgoing
from ...settings import Settings
from . import backlog
from . import declare
from .app_database import AppDatabase
from .bindings import BindingTable
from .bindings import list_wanted_bindings
from .database import Database
from .ddl import list_ddl
from .dead_letters import SqlDeadLetters
from .link import SqlLink
from .ordered_link import OrderedLink
from .publisher import SqlPublisher

logger = get_logger("flask_qconsume.brokers.sql")

#: A query that any database answers.
_ONE: sa.Executable = sa.select(sa.literal_column("1"))


class _Parts(t.NamedTuple):
    """The objects of a broker that one process creates for itself."""

    shared: AppDatabase
    bindings: BindingTable
    publisher: SqlPublisher


class SqlBroker(Broker):
    """A broker whose messages are rows of a table."""

    #: Creates SQLAlchemy's dialect, which needs no driver.
    create_dialect: t.ClassVar[t.Callable[..., sa.Dialect]]
    link: t.ClassVar[type[SqlLink]] = SqlLink
    #: Class of the links of consumers with ``ordering="key"``.
    ordered_link: t.ClassVar[type[SqlLink]] = OrderedLink

    def __init__(self, settings: Settings, topology: Topology) -> None:
        super().__init__(settings, topology)
        self._parts = PerProcess(self._create_parts, leave=_leave)

    def _open_database(self) -> Database:
        """Create the database's object, without connecting yet."""
        raise NotImplementedError

    def connect(self, plan: QueuePlan, lane: Lane, prefetch: int) -> Link:
        self._declare_once()
        is_ordered = lane is Lane.MAIN and plan.ordering == "key"
        link = self.ordered_link if is_ordered else self.link
        return link(plan, lane, self._shared)

    def publish(
        self, messages: Sequence[Outgoing], timeout: float
    ) -> list[Exception | None]:
        check_messages(messages, self.topology.exchange, self.capabilities)
        if not self._shared.is_declared:
            # Until the database has answered once, do not wait for long.
            timeout = min(timeout, self.settings.away_after)
        return self._parts.get().publisher.publish(messages, timeout)

    def declare(self) -> None:
        parts = self._parts.get()
        database = parts.shared.database
        database.check()
        if self.settings.declare == "auto":
            declare.declare(database, self.topology, parts.bindings)
        elif self.settings.declare == "passive":
            declare.check_declared(database, self.topology, parts.bindings)
        else:
            declare.check_version(database)
        parts.bindings.clear_cache()
        parts.shared.note_declared()

    def list_ddl(self) -> list[str]:
        return list_ddl(self.create_dialect(paramstyle="named"), self.topology)

    def stale_bindings(self) -> list[Binding]:
        queues = {plan.name for plan in self.topology.queues}
        wanted = {row.binding for row in list_wanted_bindings(self.topology)}
        found = set(self.find_bindings(self._list_bound))
        return sorted(b for b in found - wanted if b.queue in queues)

    def unbind(self, bindings: Sequence[Binding]) -> None:
        self._parts.get().bindings.remove(bindings)

    def depth(self, queue: str) -> int:
        return backlog.count_waiting(self._shared.database, queue)

    def caveats(self) -> list[str]:
        return self._shared.database.caveats()

    def is_reachable(self) -> bool:
        try:
            self._shared.database.read(_ONE)
        except BrokerError:
            return False
        return True

    def read_suspects(self, plan: QueuePlan) -> SuspectsStatus:
        (status,) = self.read_statuses([plan])
        assert status.suspects is not None
        return status.suspects

    def read_statuses(self, plans: Sequence[QueuePlan]) -> list[QueueStatus]:
        return backlog.read_statuses(self._shared.database, plans)

    def read_backlog(
        self, plans: Sequence[QueuePlan], timeout: float
    ) -> list[QueueStatus]:
        return backlog.read_statuses(self._shared.database, plans, timeout)

    def dead_letters(self, plan: QueuePlan) -> DeadLetters:
        return SqlDeadLetters(plan, self._shared)

    def close(self) -> None:
        parts = self._parts.take()
        if parts is not None:
            parts.shared.close()

    def abandon_after_fork(self) -> None:
        self._parts.leave_to_parent()

    @property
    def _shared(self) -> AppDatabase:
        return self._parts.get().shared

    def _create_parts(self) -> _Parts:
        shared = AppDatabase(self.settings, self._open_database())
        bindings = BindingTable(shared.database)
        publisher = SqlPublisher(
            shared, bindings, self._declare_once, self._declare_if_allowed
        )
        return _Parts(shared, bindings, publisher)

    def _declare_once(self) -> None:
        """Declare the topology, unless this process has declared it already."""
        if not self._shared.is_declared:
            self.declare()
            for text in self.caveats():
                logger.warning("%s", text)

    def _declare_if_allowed(self) -> None:
        if self.settings.declare == "auto":
            self.declare()

    def _list_bound(self, exchange: str) -> list[Binding]:
        return [row.binding for row in self._parts.get().bindings.read(exchange)]


def _leave(parts: _Parts) -> None:
    parts.shared.database.abandon_after_fork()
