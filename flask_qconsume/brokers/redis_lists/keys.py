"""Names of the keys in kombu's list layout, and of keys that we add. No I/O.

================================  ===================================================
``<queue>``, ``<queue><sep>3``…   lists, one per priority step, read from the right
``_kombu.binding.<exchange>``     set of ``routing key, pattern, queue``
``unacked``, ``unacked_index``    hash and sorted set of messages held by consumers
``<queue>.leases``                sorted set: our own part of them, by end of lease
``<queue>.delayed``               sorted set by due time: ``<step>:<envelope>``
``<queue>.dead``                  sorted set by time of expiry: envelopes
================================  ===================================================

All times are by the server's clock. kombu reads step 0 first. Priority 9 of this
package is kombu's 0. A message without priority is in step 0, too, as it is for kombu.
"""

from __future__ import annotations

import typing as t
from bisect import bisect
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import ConfigurationError
from ..redis.options import CONNECTION_OPTIONS
from ..redis.options import HIGHEST
from ..redis.options import REPLICA_OPTIONS
from ..redis.options import check_known
from ..redis.options import check_option
from ..redis.options import read_priority_steps
from ..redis.options import read_text

#: Transport options about the layout, and the fields that they set.
_LAYOUT_OPTIONS = {
    "global_keyprefix": "prefix",
    "sep": "sep",
    "priority_steps": "steps",
    "unacked_key": "unacked",
    "unacked_index_key": "unacked_index",
}
#: Options without effect: a link consumes one queue, and PUB/SUB is not used.
_WITHOUT_EFFECT = (
    "fanout_patterns",
    "fanout_prefix",
    "queue_order_strategy",
    "sentinel_fanout_compat",
)
#: Options that kombu would follow and this package cannot, with the reason.
_REFUSED = {
    "ack_emulation": "messages are always kept until they are acknowledged",
    "body_encoding": "bodies are always sent as base64, and read in any encoding",
    "deadletter_queue": "an unroutable message is an error; bind a queue with '#'",
    "polling_interval": "a queue is waited on, not polled",
    "reauth_check_interval": "connections are not kept for that long",
    "retry_on_timeout": "a publish is tried again until 'QCONSUME_PUBLISH_TIMEOUT'",
    "unacked_mutex_expire": "messages are restored without a lock",
    "unacked_mutex_key": "messages are restored without a lock",
    "unacked_restore_interval": "set 'QCONSUME_LEASE'",
    "unacked_restore_limit": "set 'QCONSUME_LEASE'",
    "unacked_restore_throttle": "set 'QCONSUME_LEASE'",
    "visibility_timeout": "set 'QCONSUME_LEASE'",
}


@dataclass(frozen=True)
class ListLayout:
    """The names of all keys: those of kombu's list transport, and additional ones."""

    prefix: str = ""
    sep: str = "\x06\x16"
    steps: tuple[int, ...] = (0, 3, 6, 9)
    unacked_name: str = "unacked"
    unacked_index_name: str = "unacked_index"

    def queue_key(self, queue: str) -> str:
        """Return the key of a queue's list for messages without a priority."""
        return self.prefix + queue

    def list_key(self, queue: str, step: int) -> str:
        """Return the key of a queue's list for one priority step."""
        return (
            f"{self.queue_key(queue)}{self.sep}{step}"
            if step
            else self.queue_key(queue)
        )

    def list_keys(self, queue: str) -> list[str]:
        """Return the keys of a queue's lists, the highest priority first."""
        return [self.list_key(queue, step) for step in self.steps]

    def priority_step(self, priority: int) -> int:
        """Return the priority step, one of a few numbers, for a kombu priority."""
        number = max(0, min(priority, HIGHEST))
        return self.steps[bisect(self.steps, number) - 1]

    def bindings_key(self, exchange: str) -> str:
        return f"{self.prefix}_kombu.binding.{exchange}"

    def permanent_bindings_key(self, exchange: str) -> str:
        """Return the key of a set that keeps kombu from deleting bindings.

        When a queue expires, kombu deletes all bindings of its exchange, unless the set
        has members.
        """
        return f"{self.prefix}_kombu.binding_permanent.{exchange}"

    def binding_keys(self, exchange: str) -> list[str]:
        """Return an exchange's two keys for bindings; only the first one is read."""
        return [self.bindings_key(exchange), self.permanent_bindings_key(exchange)]

    @property
    def shared_keys(self) -> tuple[str, str]:
        """The keys in which kombu keeps the unsettled messages of all queues."""
        return self.unacked_key, self.unacked_index_key

    def describe_keys(self, queue: str) -> Iterator[tuple[str, str]]:
        """Yield a queue's keys, each described in a text with ``{}`` for the queue."""
        for step in self.steps:
            key = self.list_key(queue, step)
            yield key, f"the step {step} of {{}}" if step else "{}"
        yield self.leases_key(queue), "the leases of {}"
        yield self.delayed_key(queue), "the delayed messages of {}"

    def dead_key(self, queue: str) -> str:
        """Return the key of dead letters; ``queue`` is ``<name of a queue>.dead``."""
        return self.queue_key(queue)

    @property
    def unacked_key(self) -> str:
        return self.prefix + self.unacked_name

    @property
    def unacked_index_key(self) -> str:
        return self.prefix + self.unacked_index_name

    def leases_key(self, queue: str) -> str:
        return f"{self.queue_key(queue)}.leases"

    def delayed_key(self, queue: str) -> str:
        return f"{self.queue_key(queue)}.delayed"

    def held_keys(self, queue: str) -> list[str]:
        """Return the keys that hold unsettled messages: ours, and kombu's two."""
        return [self.leases_key(queue), self.unacked_key, self.unacked_index_key]


def create_layout(options: Mapping[str, t.Any]) -> ListLayout:
    """Return the layout that kombu uses with these transport options.

    :raises ConfigurationError: for an option that is unknown or not supported.
    """
    for name in options:
        check_option(name, options[name])
        _check_supported(name)
    steps = options.get("priority_steps", ListLayout.steps)
    return ListLayout(
        prefix=read_text(options, "global_keyprefix", ListLayout.prefix),
        sep=read_text(options, "sep", ListLayout.sep),
        steps=read_priority_steps(steps),
        unacked_name=read_text(options, "unacked_key", ListLayout.unacked_name),
        unacked_index_name=read_text(
            options, "unacked_index_key", ListLayout.unacked_index_name
        ),
    )


def _check_supported(name: str) -> None:
    if name in _REFUSED:
        raise ConfigurationError(
            f"'QCONSUME_TRANSPORT_OPTIONS' has '{name}', which cannot be honoured:"
            f" {_REFUSED[name]}. Remove it."
        )
    known = [*_LAYOUT_OPTIONS, *CONNECTION_OPTIONS, *REPLICA_OPTIONS, *_WITHOUT_EFFECT]
    check_known(name, known, "Redis")
