"""What any layout of queues in Redis has in common, as an app's broker."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

from ...broker.base import Broker
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
from .shared import Shared

L = t.TypeVar("L")


class Keys(t.Protocol):
    """What is to be known of a layout here."""

    @property
    def sep(self) -> str:
        """What stands between the parts of a binding."""

    @property
    def shared_keys(self) -> Sequence[str]:
        """Keys of kombu's that all queues use."""

    def describe_keys(self, queue: str) -> Iterable[tuple[str, str]]:
        """The keys of a queue, each with what it is; ``{}`` stands for the queue."""

    def dead_key(self, queue: str) -> str:
        """The key of dead letters."""

    def binding_keys(self, exchange: str) -> list[str]:
        """The keys of an exchange."""


class RedisBroker(Broker, t.Generic[L]):
    """Bindings in sets, publishing by scripts; a subclass knows where messages lie."""

    link: t.ClassVar[type[RedisLink]]
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
        #: Set once this process has declared its bindings, and once it has warned.
        self._declared_here = PerProcess(threading.Event)
        self._warned_here = PerProcess(threading.Event)
        shared.prepare = self._prepare_reading

    def _kinds(self) -> Iterator[tuple[str, str]]:
        """The keys of the app's queues, and the type that each has in Redis."""
        raise NotImplementedError

    def names(self) -> Iterator[Name]:
        layout = t.cast(Keys, self._shared.layout)
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
            yield Name(key, "what kombu's consumers hold")

    def companion_names(self, plan: QueuePlan) -> tuple[str, str]:
        layout = t.cast(Keys, self._shared.layout)
        ((suspects, _), *_) = layout.describe_keys(plan.suspects)
        return suspects, layout.dead_key(plan.dead)

    def check_names(self) -> None:
        sep = t.cast(Keys, self._shared.layout).sep
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
        self._warn()
        return self.link(plan, lane, self._shared)

    def publish(
        self, messages: Sequence[Outgoing], timeout: float
    ) -> list[Exception | None]:
        check_messages(messages, self.topology.exchange, self.capabilities)
        if not self._declared_here.get().is_set():
            # Nothing tells that there is a Redis at all.
            timeout = min(timeout, self.settings.away_after)
        return self._publisher.publish(messages, timeout)

    def declare(self) -> None:
        try:
            self._declare(None)
        except MemoryFull as error:
            raise BrokerUnavailable(_unbound(error)) from error

    def stale_bindings(self) -> list[Binding]:
        queues = {plan.name for plan in self.topology.queues}
        asked_for = {member.binding for member in list_wanted_bindings(self.topology)}
        found = set(self.find_bindings(self._bound_to))
        return sorted(b for b in found - asked_for if b.queue in queues)

    def _bound_to(self, exchange: str) -> list[Binding]:
        return [member.binding for member in self._bindings.read_entries(exchange)]

    def unbind(self, bindings: Sequence[Binding]) -> None:
        self._bindings.remove(bindings)

    def caveats(self) -> list[str]:
        return list(describe_evictions(self._shared.server))

    def is_reachable(self) -> bool:
        return self._shared.server.answers()

    def close(self) -> None:
        self._shared.server.close()

    def _declare(self, timeout: float | None) -> None:
        """Declare, or check.

        :raises MemoryFull: if a binding that is not there yet cannot be written.
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
        wanted = list_wanted_bindings(self.topology)
        if self.settings.declare == "passive":
            self._check_bound(wanted, timeout)
            return
        try:
            self._bindings.add(wanted, timeout)
        except MemoryFull:
            if self._unbound(wanted, timeout):
                raise

    def _prepare(self, timeout: float | None) -> None:
        """Declare before this process publishes or reads for the first time."""
        if not self._declared_here.get().is_set():
            self._declare(timeout)

    def _prepare_reading(self) -> None:
        """Declare before the first read; where Redis is full, as soon as it is not.

        What is read until then makes room.
        """
        try:
            self._prepare(None)
        except MemoryFull as error:
            self._shared.warn(_unbound(error))

    def _redeclare(self, timeout: float) -> None:
        """Bind again what an emptied Redis may have forgotten."""
        self._bindings.forget()
        if self.settings.declare == "auto":
            self._declare(timeout)

    def _warn(self) -> None:
        """Log once in a process what makes the guarantee less than it is."""
        if not self._warned_here.get().is_set():
            for text in self.caveats():
                self._shared.warn(text)
            self._warned_here.get().set()

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

    def _check_bound(self, wanted: list[BindingEntry], timeout: float | None) -> None:
        missing = self._unbound(wanted, timeout)
        if missing:
            first = missing[0]
            raise TopologyMismatch(
                f"The queue '{first.queue}' is not bound to the exchange"
                f" '{first.exchange}' for '{first.routing_key}' ({len(missing)} such"
                " bindings are missing), and 'QCONSUME_DECLARE' is 'passive'. Run"
                " 'flask qconsume declare' where it is 'auto'."
            )

    def _unbound(
        self, wanted: list[BindingEntry], timeout: float | None
    ) -> list[Binding]:
        """The bindings that are not there."""
        exchanges = {member.exchange for member in wanted}
        found = {
            member.binding
            for exchange in exchanges
            for member in self._bindings.read_entries(exchange, timeout)
        }
        return sorted({member.binding for member in wanted} - found)


def _unbound(error: MemoryFull) -> str:
    return (
        f"Bindings of the app's queues are missing, and cannot be written: {error} They"
        " are written once there is room; consumers read meanwhile, which makes some."
    )
