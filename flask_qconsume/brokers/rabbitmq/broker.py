"""One app's RabbitMQ in one process."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence

from amqp.exceptions import InternalError

from ...broker.base import Broker
from ...broker.base import DeadLetters
from ...broker.base import HeldBack
from ...broker.base import QueueStatus
from ...broker.capabilities import Capabilities
from ...broker.checks import check_messages
from ...broker.link import Lane
from ...broker.link import Link
from ...broker.names import Name
from ...broker.names import list_names
from ...broker.properties import encode_outgoing
from ...broker.reachability import is_any_reachable
from ...broker.topology import Binding
from ...broker.topology import QueuePlan
from ...broker.topology import Topology
from ...errors import BrokerUnavailable
from ...errors import PublishRefused
from ...errors import RegistrationError
from ...errors import UnsupportedByBroker
from ...first_use import PerProcess
from ...message import Outgoing
from ...settings import Settings
from ...text import escape
from ...text import quote
from .binding_record import Record
from .binding_record import record_of
from .browse_lock import lock_of
from .capabilities import CLASSIC
from .capabilities import QUORUM
from .connection import addresses
from .connection import check
from .connection import requests
from .dead_letters import RabbitDeadLetters
from .declare import Declaring
from .depth import depth
from .link import RabbitLink
from .pending_publish import Parcel
from .pending_publish import expiration
from .publisher import Publisher
from .status import StatusReader
from .wait_queues import Step
from .wait_queues import all_steps
from .wait_queues import delay_step
from .wait_queues import retry_step

#: Bytes: names are AMQP's short strings.
_LONGEST = 255
_PAUSES = (0.1, 0.2, 0.4, 0.8)


class RabbitMQ(Broker):
    """Links of a connection each, and one publisher with a connection of its own."""

    link: t.ClassVar[type[RabbitLink]] = RabbitLink

    def __init__(self, settings: Settings, topology: Topology) -> None:
        super().__init__(settings, topology)
        check(settings)
        self.capabilities = CLASSIC if settings.queue_type == "classic" else QUORUM
        self._publisher = PerProcess(lambda: Publisher(settings, topology))

    @classmethod
    def all_capabilities(cls) -> tuple[Capabilities, ...]:
        return QUORUM, CLASSIC

    def names(self) -> Iterator[Name]:
        for plan in self.topology.queues:
            yield from list_names(plan, readable=True)
            lock = f"the lock of the dead letters of the consumer '{plan.consumer}'"
            yield Name(lock_of(plan.dead), lock)
        exchange = self.topology.exchange
        yield Name(exchange, "the app's exchange", "exchange")
        yield Name(record_of(exchange), "the record of the app's bindings")
        for step in all_steps(exchange):
            yield Name(step.name, "a queue in which the app's messages wait")
            yield Name(step.name, "the exchange of a wait queue", "exchange")
        for name in {each.exchange for each in self.topology.bindings} - {exchange}:
            yield Name(name, "an exchange that a kombu.Queue names", "exchange")

    def check_names(self) -> None:
        for name in self.names():
            if len(name.text.encode()) > _LONGEST:
                raise RegistrationError(
                    f"The name {quote(name.text)}, for {name.what}, is longer than"
                    f" {_LONGEST} bytes, which RabbitMQ cannot have. Make the queue's"
                    " name shorter, or 'QCONSUME_QUEUE_PREFIX', or 'QCONSUME_EXCHANGE'."
                )
        super().check_names()

    def connect(self, plan: QueuePlan, lane: Lane, prefetch: int) -> Link:
        # Here, on the hub of the worker: under gevent a thread belongs to the hub that
        # it was started on, and the one of a thread pool's thread does not go on.
        self._publisher.get().start()
        return self.link(self.settings, plan, lane, prefetch, self._send)

    def publish(
        self, messages: Sequence[Outgoing], timeout: float
    ) -> list[Exception | None]:
        check_messages(messages, self.topology.exchange, self.capabilities)
        for message in messages:
            self._check(message)
        made = [self._parcel(message) for message in messages]
        parcels = [parcel for parcel in made if isinstance(parcel, Parcel)]
        errors = iter(self._publisher.get().publish(parcels, timeout))
        return [next(errors) if isinstance(m, Parcel) else m for m in made]

    def declare(self) -> None:
        if self.settings.declare == "never":
            return
        for pause in _PAUSES:
            try:
                return self._declare()
            except BrokerUnavailable as error:
                if not isinstance(error.__cause__, InternalError):
                    raise
            # Another process is declaring one of the queues at this very moment.
            time.sleep(pause)
        self._declare()

    def _declare(self) -> None:
        with requests(self.settings, "declaring the topology") as channel:
            declaring = Declaring(channel, self.settings.declare)
            declaring.topology(self.topology)
            if self.settings.declare == "auto":
                Record(channel, self.topology.exchange).remember(self.topology.bindings)

    def declare_delays(self) -> None:
        with requests(self.settings, "declaring the wait queues") as channel:
            declaring = Declaring(channel, self.settings.declare)
            for step in all_steps(self.topology.exchange):
                step.declare(declaring)

    def stale_bindings(self) -> list[Binding]:
        wanted = set(self.topology.bindings)
        queues = {plan.name for plan in self.topology.queues}
        known = self.find_bindings(self._recorded)
        return [b for b in known if b.queue in queues and b not in wanted]

    def unbind(self, bindings: Sequence[Binding]) -> None:
        with requests(self.settings, "removing bindings") as channel:
            for binding in bindings:
                channel.queue_unbind(
                    binding.queue, binding.exchange, binding.routing_key
                )
            for exchange in sorted({binding.exchange for binding in bindings}):
                gone = [each for each in bindings if each.exchange == exchange]
                Record(channel, exchange).forget(gone)

    def _recorded(self, exchange: str) -> list[Binding]:
        # By a channel for each: RabbitMQ closes it where there is no record.
        with requests(self.settings, "reading the bindings") as channel:
            return Record(channel, exchange).known()

    def depth(self, queue: str) -> int:
        with requests(self.settings, f"counting '{queue}'") as channel:
            return depth(channel, queue)

    def read_statuses(self, plans: Sequence[QueuePlan]) -> list[QueueStatus]:
        return StatusReader(self.settings).read_statuses(plans, self.dead_letters)

    def caveats(self) -> list[str]:
        return StatusReader(self.settings).caveats(self.topology.queues)

    def read_held_back(self) -> HeldBack:
        return StatusReader(self.settings).read_held_back(self.topology.exchange)

    def is_reachable(self) -> bool:
        return is_any_reachable(addresses(self.settings))

    def dead_letters(self, plan: QueuePlan) -> DeadLetters:
        return RabbitDeadLetters(self.settings, plan, self._send)

    def close(self) -> None:
        publisher = self._publisher.take()
        if publisher is not None:
            publisher.close()

    def _send(self, parcels: Sequence[Parcel]) -> list[Exception | None]:
        return self._publisher.get().publish(parcels, self.settings.publish_timeout)

    def _check(self, message: Outgoing) -> None:
        if message.delay and message.exchange not in ("", self.topology.exchange):
            raise UnsupportedByBroker(
                f"A delayed message cannot go to the exchange"
                f" {quote(message.exchange)}: the wait queues lead to the app's own,"
                f" '{self.topology.exchange}'."
            )

    def _parcel(self, message: Outgoing) -> Parcel | Exception:
        basic = encode_outgoing(message)
        where: dict[str, t.Any] = {"exchange": message.exchange}
        if message.delay > 0:
            step = self._step(message)
            basic["expiration"] = expiration(message.delay)
            where = {"exchange": step.name, "step": step, "ours": True}
        elif message.expires is not None:
            basic["expiration"] = expiration(message.expires)
        try:
            return Parcel(
                basic,
                message.body,
                routing_key=message.routing_key,
                mandatory=message.mandatory,
                **where,
            )
        except Exception as error:
            return _unsendable(message, error)

    def _step(self, message: Outgoing) -> Step:
        step = delay_step if message.exchange else retry_step
        return step(self.topology.exchange, message.delay)


def _unsendable(message: Outgoing, error: Exception) -> PublishRefused:
    return PublishRefused(
        f"AMQP has no way to write the headers or properties of a message to"
        f" {quote(message.routing_key)}: {type(error).__name__}: {escape(error)}"
    )
