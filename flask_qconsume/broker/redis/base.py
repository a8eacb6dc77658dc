"""What any layout of queues in Redis has in common, as an app's broker."""

from __future__ import annotations

import os
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence

from ...errors import TopologyMismatch
from ...message import Outgoing
from ...settings import Settings
from ..base import Broker
from ..policies import check_messages
from ..topology import Binding
from ..topology import Topology
from .bindings import Bindings
from .bindings import Member
from .bindings import wanted_by
from .publisher import Publisher
from .shared import Shared

L = t.TypeVar("L")


class RedisBroker(Broker, t.Generic[L]):
    """Bindings in sets, publishing by scripts; a subclass knows where messages lie."""

    #: What puts messages into the queues.
    publisher: t.ClassVar[type[Publisher]]

    def __init__(
        self, settings: Settings, topology: Topology, shared: Shared[L]
    ) -> None:
        super().__init__(settings, topology)
        self._shared = shared
        self._bindings = Bindings(shared.server, t.cast(t.Any, shared.layout))
        self._publisher = self.publisher(
            shared, self._bindings, self._prepare, self._redeclare
        )
        self._declared_by: int | None = None

    def _kinds(self) -> Iterator[tuple[str, str]]:
        """The keys of the app's queues, and the type that each has in Redis."""
        raise NotImplementedError

    def publish(
        self, messages: Sequence[Outgoing], timeout: float
    ) -> list[Exception | None]:
        check_messages(messages, self.topology.exchange, self.capabilities)
        return self._publisher.publish(messages, timeout)

    def declare(self) -> None:
        self._declare(None)

    def stale_bindings(self) -> list[Binding]:
        queues = {plan.name for plan in self.topology.queues}
        asked_for = {member.binding for member in wanted_by(self.topology)}
        found = {
            member.binding
            for exchange in self.exchanges
            for member in self._bindings.members(exchange)
        }
        return sorted(b for b in found - asked_for if b.queue in queues)

    def unbind(self, bindings: Sequence[Binding]) -> None:
        self._bindings.remove(bindings)

    def answers(self) -> bool:
        return self._shared.server.answers()

    def close(self) -> None:
        self._shared.server.close()

    def _declare(self, timeout: float | None) -> None:
        wanted = wanted_by(self.topology)
        if self.settings.declare == "auto":
            self._check_keys(timeout)
            self._bindings.add(wanted, timeout)
        elif self.settings.declare == "passive":
            self._check_keys(timeout)
            self._check_bound(wanted, timeout)
        self._declared_by = os.getpid()

    def _prepare(self, timeout: float) -> None:
        """Declare before the first publish of this process."""
        if self._declared_by != os.getpid():
            self._declare(timeout)

    def _redeclare(self, timeout: float) -> None:
        """Bind again what an emptied Redis may have forgotten."""
        self._bindings.forget()
        if self.settings.declare == "auto":
            self._declare(timeout)

    def _check_keys(self, timeout: float | None) -> None:
        kinds = dict(self._kinds())
        asked = [("TYPE", key) for key in kinds]
        for (key, kind), answer in zip(
            kinds.items(), self._shared.server.commands(asked, timeout), strict=True
        ):
            if answer.decode() not in (kind, "none"):
                raise TopologyMismatch(
                    f"The key '{key}' in Redis is a {answer.decode()}, not a {kind}:"
                    " another program uses that name. Set 'QCONSUME_QUEUE_PREFIX', or"
                    " remove the key."
                )

    def _check_bound(self, wanted: list[Member], timeout: float | None) -> None:
        exchanges = {member.exchange for member in wanted}
        found = {
            member.binding
            for exchange in exchanges
            for member in self._bindings.members(exchange, timeout)
        }
        missing = sorted({member.binding for member in wanted} - found)
        if missing:
            first = missing[0]
            raise TopologyMismatch(
                f"The queue '{first.queue}' is not bound to the exchange"
                f" '{first.exchange}' for '{first.routing_key}' ({len(missing)} such"
                " bindings are missing), and 'QCONSUME_DECLARE' is 'passive'. Run"
                " 'flask qconsume declare' where it is 'auto'."
            )
