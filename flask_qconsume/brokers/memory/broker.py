"""The broker for ``memory://``, which keeps queues in a store inside the process."""

from __future__ import annotations

import dataclasses
import typing as t
from collections.abc import Sequence

from ...broker.base import Broker
from ...broker.base import QueueStatus
from ...broker.base import SuspectsStatus
from ...broker.checks import check_messages
from ...broker.compose import make_unroutable_error
from ...broker.dead_letters import DeadLetters
from ...broker.headers import find_oldest_suspect
from ...broker.link import Lane
from ...broker.link import Link
from ...broker.properties import encode_outgoing
from ...broker.properties import read_message
from ...broker.topology import Binding
from ...broker.topology import QueuePlan
from ...broker.topology import Topology
from ...errors import TopologyMismatch
from ...message import Outgoing
from ...settings import Settings
from .capabilities import CAPABILITIES
from .dead_letters import MemoryDeadLetters
from .link import MemoryLink
from .store import Store
from .store import create_stored
from .store import get_named_store


class Memory(Broker):
    """A broker that keeps its messages in the memory of this process."""

    capabilities = CAPABILITIES
    link: t.ClassVar[type[MemoryLink]] = MemoryLink

    def __init__(self, settings: Settings, topology: Topology) -> None:
        super().__init__(settings, topology)
        name = settings.broker_url.partition("://")[2].strip("/")
        self.store = get_named_store(name) if name else Store()
        self._declared = False

    @property
    def can_be_consumed(self) -> bool:
        return self.store.has_worker

    def note_worker(self) -> None:
        self.store.has_worker = True

    def connect(self, plan: QueuePlan, lane: Lane, prefetch: int) -> Link:
        self._declare_once()
        return self.link(self.store, plan, lane)

    def publish(
        self, messages: Sequence[Outgoing], timeout: float
    ) -> list[Exception | None]:
        check_messages(messages, self.topology.exchange, self.capabilities)
        try:
            self._declare_once()
        except TopologyMismatch as error:
            return [error] * len(messages)
        return [self._publish(message) for message in messages]

    def declare(self) -> None:
        if self.settings.declare == "never":
            return
        for plan in self.topology.queues:
            if self.settings.declare == "passive":
                self._check(plan)
            else:
                self._declare(plan)

    def stale_bindings(self) -> list[Binding]:
        own_queues = {plan.name for plan in self.topology.queues}
        stored_bindings = self.store.bindings - set(self.topology.bindings)
        return sorted(b for b in stored_bindings if b.queue in own_queues)

    def unbind(self, bindings: Sequence[Binding]) -> None:
        with self.store.lock:
            self.store.bindings.difference_update(bindings)

    def depth(self, queue: str) -> int:
        if any(queue == plan.name for plan in self.topology.queues):
            return self.store.depth(queue)
        return len(self.store.dead_letters(queue)) or self.store.depth(queue)

    def read_suspects(self, plan: QueuePlan) -> SuspectsStatus:
        waiting = self.store.queue(plan.suspects).ready()
        return SuspectsStatus(len(waiting), find_oldest_suspect(waiting))

    def _read_status(self, plan: QueuePlan) -> QueueStatus:
        queue = self.store.queue(plan.name)
        return dataclasses.replace(
            super()._read_status(plan),
            delayed=queue.delayed,
            oldest=queue.find_oldest(),
        )

    def dead_letters(self, plan: QueuePlan) -> DeadLetters:
        return MemoryDeadLetters(self.store, plan)

    def close(self) -> None:
        """Do nothing: there is no connection to close, and the messages stay."""

    def count_kept_in_process(self) -> int:
        return self.store.count_messages()

    def _declare_once(self) -> None:
        if not self._declared:
            self.declare()
            self._declared = True

    def _declare(self, plan: QueuePlan) -> None:
        self.store.queue(plan.name)
        with self.store.lock:
            self.store.bindings.update(plan.bindings)

    def _check(self, plan: QueuePlan) -> None:
        missing = set(plan.bindings) - self.store.bindings
        if missing:
            raise TopologyMismatch(
                f"The queue '{plan.name}' is not bound as the consumer"
                f" '{plan.consumer}' wants, and 'QCONSUME_DECLARE' is 'passive'. In"
                " memory no other process can declare it: set it to 'auto'."
            )

    def _publish(self, message: Outgoing) -> Exception | None:
        names = self.store.find_queues(message.exchange, message.routing_key)
        if not names and message.mandatory:
            return make_unroutable_error(message)
        for name in names:
            self._put(name, message)
        return None

    def _put(self, name: str, message: Outgoing) -> None:
        properties = encode_outgoing(message)
        stored = read_message(
            message.body,
            queue=name,
            exchange=message.exchange,
            routing_key=message.routing_key,
            redelivered=False,
            properties=properties,
            headers=properties["headers"],
        )
        entry = create_stored(stored, message.delay)
        self.store.queue(name).put([entry], message.delay)
