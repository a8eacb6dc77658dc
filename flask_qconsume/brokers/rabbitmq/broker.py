"""The RabbitMQ broker of one app in one process."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence

from amqp.exceptions import InternalError

from ...broker.base import Broker
from ...broker.base import HeldBack
from ...broker.base import QueueStatus
from ...broker.capabilities import Capabilities
from ...broker.checks import check_messages
from ...broker.dead_letters import DeadLetters
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
from .backlog import RabbitBacklog
from .binding_record import BindingRecord
from .binding_record import record_queue_name
from .browse_lock import lock_queue_name
from .capabilities import CLASSIC
from .capabilities import QUORUM
from .connection import check_connection_options
from .connection import list_addresses
from .connection import open_channel
from .dead_letters import RabbitDeadLetters
from .declare import Declarer
from .depth import count_ready
from .link import RabbitLink
from .pending_publish import PendingPublish
from .pending_publish import encode_expiration
from .publisher import Publisher
from .status import StatusReader
from .wait_queues import WaitQueue
from .wait_queues import choose_delay_queue
from .wait_queues import choose_retry_queue
from .wait_queues import list_wait_queues

#: AMQP limits names to this.
_MAX_NAME_BYTES = 255
#: Seconds between attempts to declare while another process declares the same queue.
_DECLARE_PAUSES = (0.1, 0.2, 0.4, 0.8)


class RabbitMQ(Broker):
    """The RabbitMQ broker of one app, with a connection for each consumed queue."""

    link: t.ClassVar[type[RabbitLink]] = RabbitLink

    def __init__(self, settings: Settings, topology: Topology) -> None:
        super().__init__(settings, topology)
        check_connection_options(settings)
        self.capabilities = CLASSIC if settings.queue_type == "classic" else QUORUM
        self._publisher = PerProcess(lambda: Publisher(settings, topology))
        self._backlog = PerProcess(lambda: RabbitBacklog(settings))

    @classmethod
    def all_capabilities(cls) -> tuple[Capabilities, ...]:
        return QUORUM, CLASSIC

    def names(self) -> Iterator[Name]:
        for plan in self.topology.queues:
            yield from list_names(plan, readable=True)
            lock = f"the lock of the dead letters of the consumer '{plan.consumer}'"
            yield Name(lock_queue_name(plan.dead), lock)
        exchange = self.topology.exchange
        yield Name(exchange, "the app's exchange", "exchange")
        yield Name(record_queue_name(exchange), "the record of the app's bindings")
        for queue in list_wait_queues(exchange):
            yield Name(queue.name, "a queue in which the app's messages wait")
            yield Name(queue.name, "the exchange of a wait queue", "exchange")
        for name in {binding.exchange for binding in self.topology.bindings} - {
            exchange
        }:
            yield Name(name, "an exchange that a kombu.Queue names", "exchange")

    def check_names(self) -> None:
        for name in self.names():
            if len(name.text.encode()) > _MAX_NAME_BYTES:
                raise RegistrationError(
                    f"The name {quote(name.text)}, for {name.what}, is longer than"
                    f" {_MAX_NAME_BYTES} bytes, the most that RabbitMQ allows. Make the"
                    " queue's name shorter, or 'QCONSUME_QUEUE_PREFIX', or"
                    " 'QCONSUME_EXCHANGE'."
                )
        super().check_names()

    def connect(self, plan: QueuePlan, lane: Lane, prefetch: int) -> Link:
        # Started here, on the worker's event loop: under gevent a thread belongs to the
        # loop that starts it, and the loop of a pool's thread does not keep running.
        self._publisher.get().start()
        return self.link(self.settings, plan, lane, prefetch, self._publish)

    def publish(
        self, messages: Sequence[Outgoing], timeout: float
    ) -> list[Exception | None]:
        check_messages(messages, self.topology.exchange, self.capabilities)
        for message in messages:
            self._check_delay(message)
        encoded = [self._encode(message) for message in messages]
        pending = [
            publish_or_error
            for publish_or_error in encoded
            if isinstance(publish_or_error, PendingPublish)
        ]
        errors = iter(self._publisher.get().publish(pending, timeout))
        return [next(errors) if isinstance(e, PendingPublish) else e for e in encoded]

    def declare(self) -> None:
        if self.settings.declare == "never":
            return
        for pause in _DECLARE_PAUSES:
            try:
                return self._declare()
            except BrokerUnavailable as error:
                if not isinstance(error.__cause__, InternalError):
                    raise
            # Another process is declaring one of the queues at this moment.
            time.sleep(pause)
        self._declare()

    def _declare(self) -> None:
        with open_channel(self.settings, "declaring the topology") as channel:
            declarer = Declarer(channel, self.settings.declare)
            declarer.declare_topology(self.topology)
            if self.settings.declare == "auto":
                record = BindingRecord(channel, self.topology.exchange)
                record.add(self.topology.bindings)

    def declare_delays(self) -> None:
        with open_channel(self.settings, "declaring the wait queues") as channel:
            declarer = Declarer(channel, self.settings.declare)
            for queue in list_wait_queues(self.topology.exchange):
                queue.declare(declarer)

    def stale_bindings(self) -> list[Binding]:
        declared_bindings = set(self.topology.bindings)
        queues = {plan.name for plan in self.topology.queues}
        recorded_bindings = self.find_bindings(self._read_bindings)
        return [
            b
            for b in recorded_bindings
            if b.queue in queues and b not in declared_bindings
        ]

    def unbind(self, bindings: Sequence[Binding]) -> None:
        with open_channel(self.settings, "removing bindings") as channel:
            for binding in bindings:
                channel.queue_unbind(
                    binding.queue, binding.exchange, binding.routing_key
                )
            for exchange in sorted({binding.exchange for binding in bindings}):
                removed_bindings = [
                    removed_binding
                    for removed_binding in bindings
                    if removed_binding.exchange == exchange
                ]
                BindingRecord(channel, exchange).remove(removed_bindings)

    def _read_bindings(self, exchange: str) -> list[Binding]:
        # On a channel for each exchange: RabbitMQ closes it if there is no record.
        with open_channel(self.settings, "reading the bindings") as channel:
            return BindingRecord(channel, exchange).read()

    def depth(self, queue: str) -> int:
        with open_channel(self.settings, f"counting '{queue}'") as channel:
            return count_ready(channel, queue)

    def read_statuses(self, plans: Sequence[QueuePlan]) -> list[QueueStatus]:
        return StatusReader(self.settings).read_statuses(plans, self.dead_letters)

    def read_backlog(
        self, plans: Sequence[QueuePlan], timeout: float
    ) -> list[QueueStatus]:
        return self._backlog.get().read(plans, timeout)

    def caveats(self) -> list[str]:
        return StatusReader(self.settings).caveats(self.topology.queues)

    def read_held_back(self) -> HeldBack:
        return StatusReader(self.settings).read_held_back(self.topology.exchange)

    def is_reachable(self) -> bool:
        return is_any_reachable(list_addresses(self.settings))

    def dead_letters(self, plan: QueuePlan) -> DeadLetters:
        return RabbitDeadLetters(self.settings, plan, self._publish)

    def close(self) -> None:
        publisher = self._publisher.take()
        if publisher is not None:
            publisher.close()
        backlog = self._backlog.take()
        if backlog is not None:
            backlog.close()

    def _publish(self, messages: Sequence[PendingPublish]) -> list[Exception | None]:
        timeout = self.settings.publish_timeout
        return self._publisher.get().publish(messages, timeout)

    def _check_delay(self, message: Outgoing) -> None:
        if message.delay and message.exchange not in ("", self.topology.exchange):
            raise UnsupportedByBroker(
                f"A delayed message cannot go to the exchange"
                f" {quote(message.exchange)}: the wait queues lead to the app's own,"
                f" '{self.topology.exchange}'."
            )

    def _encode(self, message: Outgoing) -> PendingPublish | PublishRefused:
        basic = encode_outgoing(message)
        target: dict[str, t.Any] = {"exchange": message.exchange}
        if message.delay > 0:
            queue = self._choose_wait_queue(message)
            basic["expiration"] = encode_expiration(message.delay)
            target = {"exchange": queue.name, "wait_queue": queue, "ours": True}
        elif message.expires is not None:
            basic["expiration"] = encode_expiration(message.expires)
        try:
            return PendingPublish(
                basic,
                message.body,
                routing_key=message.routing_key,
                mandatory=message.mandatory,
                **target,
            )
        except Exception as error:
            return _describe_unsendable(message, error)

    def _choose_wait_queue(self, message: Outgoing) -> WaitQueue:
        choose = choose_delay_queue if message.exchange else choose_retry_queue
        return choose(self.topology.exchange, message.delay)


def _describe_unsendable(message: Outgoing, error: Exception) -> PublishRefused:
    return PublishRefused(
        f"AMQP has no way to write the headers or properties of a message to"
        f" {quote(message.routing_key)}: {type(error).__name__}: {escape(error)}"
    )
