"""Base class of both brokers on Redis: all that does not depend on the layout."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence

from ...broker.base import Broker
from ...broker.base import QueueStatus
from ...broker.checks import check_messages
from ...broker.link import Lane
from ...broker.link import Link
from ...broker.names import Name
from ...broker.names import list_names
from ...broker.topology import Binding
from ...broker.topology import QueuePlan
from ...broker.topology import Topology
from ...errors import BrokerUnavailable
from ...errors import RegistrationError
from ...errors import TopologyMismatch
from ...first_use import PerProcess
from ...message import Outgoing
from ...settings import Settings
from ...text import quote
from .bindings import BindingEntry
from .bindings import Bindings
from .bindings import list_wanted_bindings
from .errors import MemoryFull
from .errors import SlotMoved
from .errors import create_cluster_error
from .eviction import describe_evictions
from .link import RedisLink
from .publisher import Publisher
from .scripts import Call
from .server import check_answer
from .shared import L
from .shared import Shared

#: The keys of an app, each with its type in Redis.
KeyTypes = Iterator[tuple[str, str]]


class RedisBroker(Broker, t.Generic[L]):
    """Base class of the brokers on Redis; a subclass chooses keys and their types."""

    link: t.ClassVar[type[RedisLink]]
    publisher: t.ClassVar[type[Publisher]]

    def __init__(
        self, settings: Settings, topology: Topology, shared: Shared[L]
    ) -> None:
        super().__init__(settings, topology)
        self._shared = shared
        self._bindings = Bindings(shared.server, shared.layout)
        self._publisher = self.publisher(
            shared, self._bindings, self._prepare, self._declare_again
        )
        #: Set once this process has declared its bindings.
        self._declared_here = PerProcess(threading.Event)
        #: Set once this process has logged the caveats.
        self._warned_here = PerProcess(threading.Event)
        shared.prepare = self._prepare_reading

    def _list_key_types(self) -> KeyTypes:
        """Yield each key that the app's queues use, and its type in Redis."""
        raise NotImplementedError

    def names(self) -> Iterator[Name]:
        layout = self._shared.layout
        for plan in self.topology.queues:
            main, suspects, dead = list_names(plan)
            for name in (main, suspects):
                for key, what in layout.describe_keys(name.text):
                    yield name._replace(text=key, what=what.format(name.what))
            yield dead._replace(text=layout.dead_key(dead.text))
        for exchange in sorted({b.exchange for b in self.topology.bindings}):
            for key in layout.binding_keys(exchange):
                yield Name(key, f"the bindings of the exchange {quote(exchange)}")
        for key in layout.shared_keys:
            yield Name(key, "the messages that kombu's consumers hold")

    def companion_names(self, plan: QueuePlan) -> tuple[str, str]:
        layout = self._shared.layout
        ((suspects, _), *_) = layout.describe_keys(plan.suspects)
        return suspects, layout.dead_key(plan.dead)

    def check_names(self) -> None:
        sep = self._shared.layout.sep
        for binding in self.topology.bindings:
            for text in (binding.queue, binding.routing_key):
                if sep in text:
                    raise RegistrationError(
                        f"The name {quote(text)} has {quote(sep)} in it, which stands"
                        " between the parts of a binding in Redis ('sep' in"
                        " 'QCONSUME_TRANSPORT_OPTIONS'). Choose another one."
                    )
        super().check_names()

    def connect(self, plan: QueuePlan, lane: Lane, prefetch: int) -> Link:
        self._prepare_reading()
        self._log_caveats()
        return self.link(plan, lane, self._shared)

    def publish(
        self, messages: Sequence[Outgoing], timeout: float
    ) -> list[Exception | None]:
        check_messages(messages, self.topology.exchange, self.capabilities)
        if not self._declared_here.get().is_set():
            # Until Redis has answered once, do not wait for long.
            timeout = min(timeout, self.settings.away_after)
        return self._publisher.publish(messages, timeout)

    def declare(self) -> None:
        try:
            self._declare(None)
        except MemoryFull as error:
            raise BrokerUnavailable(_describe_missing(error)) from error

    def stale_bindings(self) -> list[Binding]:
        queues = {plan.name for plan in self.topology.queues}
        asked_for = {member.binding for member in list_wanted_bindings(self.topology)}
        bindings = set(self.find_bindings(self._list_bound))
        return sorted(b for b in bindings - asked_for if b.queue in queues)

    def _list_bound(self, exchange: str) -> list[Binding]:
        return [member.binding for member in self._bindings.read_entries(exchange)]

    def unbind(self, bindings: Sequence[Binding]) -> None:
        self._bindings.remove(bindings)

    def caveats(self) -> list[str]:
        return list(describe_evictions(self._shared.server))

    def read_statuses(self, plans: Sequence[QueuePlan]) -> list[QueueStatus]:
        return self._read_statuses(plans, None)

    def read_backlog(
        self, plans: Sequence[QueuePlan], timeout: float
    ) -> list[QueueStatus]:
        return self._read_statuses(plans, timeout)

    def _read_statuses(
        self, plans: Sequence[QueuePlan], timeout: float | None
    ) -> list[QueueStatus]:
        """Read all queues in one round trip, or in one to each node of a cluster."""
        calls = [self._create_status_call(plan) for plan in plans]
        answers = self._shared.server.run(calls, timeout)
        return [
            self._decode_status(plan, check_answer(answer))
            for plan, answer in zip(plans, answers, strict=True)
        ]

    def _create_status_call(self, plan: QueuePlan) -> Call:
        """Return the script that counts the messages of a queue."""
        raise NotImplementedError

    def _decode_status(self, plan: QueuePlan, answer: t.Any) -> QueueStatus:
        """Decode the answer of the script that counts the messages of a queue."""
        raise NotImplementedError

    def is_reachable(self) -> bool:
        return self._shared.server.is_reachable()

    def close(self) -> None:
        self._shared.server.close()

    def _declare(self, timeout: float | None) -> None:
        """Declare the bindings, or check them, as ``QCONSUME_DECLARE`` says.

        :raises MemoryFull: if a missing binding cannot be written.
        """
        try:
            if self.settings.declare != "never":
                self._shared.server.check_replicas(timeout)
                self._check_keys(timeout)
                self._bind(timeout)
        except SlotMoved as error:
            if self._shared.server.follows_slots:
                raise
            raise create_cluster_error(error) from error
        self._declared_here.get().set()

    def _bind(self, timeout: float | None) -> None:
        wanted_bindings = list_wanted_bindings(self.topology)
        if self.settings.declare == "passive":
            self._check_bound(wanted_bindings, timeout)
            return
        try:
            self._bindings.add(wanted_bindings, timeout)
        except MemoryFull:
            if self._find_missing(wanted_bindings, timeout):
                raise

    def _prepare(self, timeout: float | None) -> None:
        """Declare the bindings, unless this process has declared them already."""
        if not self._declared_here.get().is_set():
            self._declare(timeout)

    def _prepare_reading(self) -> None:
        """Declare the bindings before reading; if Redis is full, log a warning.

        Consumers can read although Redis is full, and reading frees memory. Each
        heartbeat tries to declare the bindings again.
        """
        try:
            self._prepare(None)
        except MemoryFull as error:
            self._shared.warn(_describe_missing(error))

    def _declare_again(self, timeout: float) -> None:
        """Forget cached bindings, and declare the app's bindings if allowed."""
        self._bindings.clear_cache()
        if self.settings.declare == "auto":
            self._declare(timeout)

    def _log_caveats(self) -> None:
        """Log a warning for each setting of Redis that may lose messages, once."""
        if not self._warned_here.get().is_set():
            for text in self.caveats():
                self._shared.warn(text)
            self._warned_here.get().set()

    def _check_keys(self, timeout: float | None) -> None:
        types = dict(self._list_key_types())
        asked = [("TYPE", key) for key in types]
        for (key, key_type), answer in zip(
            types.items(),
            self._shared.server.send_commands(asked, timeout),
            strict=True,
        ):
            if answer.decode() not in (key_type, "none"):
                raise TopologyMismatch(
                    f"The key '{key}' in Redis is a {answer.decode()}, not a"
                    f" {key_type}: another program uses that name. Set"
                    " 'QCONSUME_QUEUE_PREFIX', or remove the key."
                )

    def _check_bound(
        self, wanted_bindings: list[BindingEntry], timeout: float | None
    ) -> None:
        missing = self._find_missing(wanted_bindings, timeout)
        if missing:
            first = missing[0]
            raise TopologyMismatch(
                f"The queue '{first.queue}' is not bound to the exchange"
                f" '{first.exchange}' for '{first.routing_key}' ({len(missing)} such"
                " bindings are missing), and 'QCONSUME_DECLARE' is 'passive'. Run"
                " 'flask qconsume declare' where it is 'auto'."
            )

    def _find_missing(
        self, wanted_bindings: list[BindingEntry], timeout: float | None
    ) -> list[Binding]:
        """Return the app's bindings that are missing in Redis."""
        exchanges = {member.exchange for member in wanted_bindings}
        existing_bindings = {
            member.binding
            for exchange in exchanges
            for member in self._bindings.read_entries(exchange, timeout)
        }
        return sorted(
            {member.binding for member in wanted_bindings} - existing_bindings
        )


def _describe_missing(error: MemoryFull) -> str:
    return (
        f"Bindings of the app's queues are missing, and cannot be written: {error} They"
        " are written once there is room; consumers read meanwhile, which makes some."
    )
