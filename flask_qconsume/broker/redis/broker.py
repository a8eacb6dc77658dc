"""Redis as an app's broker: puts the parts together, and says what they can do."""

from __future__ import annotations

import os
import typing as t
from collections.abc import Sequence

from ...errors import TopologyMismatch
from ...errors import UnsupportedByBroker
from ...message import Outgoing
from ...settings import Settings
from ..base import Broker
from ..base import DeadLetters
from ..base import Link
from ..capabilities import Capabilities
from ..delivery import Lane
from ..topology import Binding
from ..topology import QueuePlan
from ..topology import Topology
from .bindings import Bindings
from .bindings import Member
from .bindings import wanted_by
from .dead_letters import RedisDeadLetters
from .link import RedisLink
from .publisher import Publisher
from .shared import Shared

_YEAR = 365 * 86_400.0


class RedisLists(Broker):
    """kombu's list transport, read and settled by scripts of our own."""

    capabilities: t.ClassVar[Capabilities] = Capabilities(
        broker="Redis",
        shared=True,
        survives_worker_death=True,
        durable=True,
        priorities=True,
        max_delay=10 * _YEAR,
        delays=(
            "A sorted set per queue, moved to the queue by its workers when due; late"
            " by some 0.1 s, a delay below 1 s published by another process by up to"
            " 1 s. Held back for longer while no worker of the queue runs."
        ),
        dead_letters=(
            "A sorted set per queue, '<queue>.dead', by the time they are kept to."
            " Put there, and taken from the queue, in one step."
        ),
        counts_deaths=(
            "A message whose worker is not heard of for QCONSUME_LEASE goes back to"
            " its queue, marked as redelivered: from then on it is a suspect. A clean"
            " stop and a lost connection mark nothing."
        ),
        confirms=(
            "Redis has answered: the message is in all of its queues, in the server's"
            " memory; on disk or on a replica only as the server is set up."
        ),
        unroutable=(
            "By our look-up of kombu's bindings, at most 1 s old. A queue addressed by"
            " its name through the default exchange always counts as there."
        ),
        guarantee=(
            "At least once, as long as the server keeps its data: without an"
            " append-only file with 'appendfsync always' a crash of Redis loses the"
            " latest messages, or all; a failover loses what was not replicated yet;"
            " 'maxmemory' must not evict ('noeviction'). Messages that nobody reads"
            " expire only when they are read. A kombu or Celery worker that reads the"
            " same queue takes messages out before it notes them: killed in between,"
            " it loses them, and its visibility timeout must be longer than"
            " QCONSUME_LEASE."
        ),
    )

    def __init__(self, settings: Settings, topology: Topology) -> None:
        super().__init__(settings, topology)
        self._shared = Shared(settings)
        self._bindings = Bindings(self._shared.server, self._shared.layout)
        self._publisher = Publisher(
            self._shared, self._bindings, self._prepare, self._redeclare
        )
        self._declared_by: int | None = None

    def connect(self, plan: QueuePlan, lane: Lane, prefetch: int) -> Link:
        return RedisLink(plan, lane, self._shared)

    def publish(
        self, messages: Sequence[Outgoing], timeout: float
    ) -> list[Exception | None]:
        for message in messages:
            if message.delay > self.capabilities.max_delay:
                raise UnsupportedByBroker(
                    f"A delay of '{message.delay:g}' seconds is more than 10 years,"
                    " the longest on Redis."
                )
        return self._publisher.publish(messages, timeout)

    def declare(self) -> None:
        self._declare(None)

    def stale_bindings(self) -> list[Binding]:
        queues = {plan.name for plan in self.topology.queues}
        asked_for = {member.binding for member in wanted_by(self.topology)}
        found = {m.binding for m in self._bindings.members(self.topology.exchange)}
        return sorted(b for b in found - asked_for if b.queue in queues)

    def unbind(self, bindings: Sequence[Binding]) -> None:
        self._bindings.remove(bindings)

    def depth(self, queue: str) -> int:
        lists = self._shared.layout.lists(queue)
        counts = self._shared.server.commands([("LLEN", key) for key in lists])
        return sum(counts)

    def dead_letters(self, plan: QueuePlan) -> DeadLetters:
        return RedisDeadLetters(plan, self._shared)

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
        base = self._shared.layout.base
        kinds = {
            base(name): kind
            for plan in self.topology.queues
            for name, kind in (
                (plan.name, "list"),
                (plan.suspects, "list"),
                (plan.dead, "zset"),
            )
        }
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
