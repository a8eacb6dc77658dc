"""Names of the keys for queues in Redis Streams. No I/O.

===============================  ====================================================
``<queue>``                      stream of messages with a low priority or none; other
                                 programs add entries here by ``XADD``
``{<queue>}.priority.3``…        streams of the higher priority steps, read first
``{<queue>}.suspects``           stream of suspects, which may kill a process
``{<queue>}.delayed``            sorted set by due time, of packed entries
``{<queue>}.dead``               sorted set by time of expiry, of packed entries
``_qconsume.binding.<exchange>``  set of ``routing key, pattern, queue``
===============================  ====================================================

The braces are hash tags: all keys of a queue are in one slot of a cluster. So every
script stays in one slot, except a publish to several queues. A prefix with a hash tag
of its own (``"{shop}:"``) puts all keys into one slot, and that publish too.
"""

from __future__ import annotations

import re
import typing as t
from bisect import bisect
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass

from ..redis.options import CONNECTION_OPTIONS
from ..redis.options import HIGHEST
from ..redis.options import REPLICA_OPTIONS
from ..redis.options import check_known
from ..redis.options import check_option
from ..redis.options import read_priority_steps
from ..redis.options import read_text

#: Suffixes of the names of a queue's suspects and dead letters.
COMPANION_SUFFIXES = (".suspects", ".dead")
_HASH_TAG = re.compile(r"\{[^}]+\}")
#: Transport options about the layout, and the fields that they set.
_TEXT_OPTIONS = {"global_keyprefix": "prefix", "body_field": "body", "group": "group"}
_STEPS_OPTION = "priority_steps"
#: All transport options.
OPTIONS = tuple(
    sorted([*_TEXT_OPTIONS, _STEPS_OPTION, *CONNECTION_OPTIONS, *REPLICA_OPTIONS])
)


@dataclass(frozen=True)
class StreamLayout:
    """The names of the keys, the consumer group, and the field with the body."""

    prefix: str = ""
    #: The field that holds the body.
    body: str = "body"
    #: The consumer group that reads the streams.
    group: str = "qconsume"
    steps: tuple[int, ...] = (0, 3, 6, 9)
    #: The separator of the parts of a binding.
    sep: str = "\x06\x16"

    def stream_key(self, queue: str, step: int = 0) -> str:
        """Return the key of the stream that holds one priority step of a queue."""
        if step == self.steps[0]:
            return self._key(queue)
        return self._key(queue, f".priority.{step}")

    def stream_keys(self, queue: str) -> list[str]:
        """Return the keys of a queue's streams, the highest priority first."""
        return [self.stream_key(queue, step) for step in self.queue_steps(queue)]

    def queue_steps(self, queue: str) -> tuple[int, ...]:
        """Return the priority steps of a queue, the highest first.

        Suspects have only one step, since they must be read one at a time, and a read
        of several streams may return one message per stream.
        """
        return (
            self.steps[:1] if queue.endswith(COMPANION_SUFFIXES) else self.steps[::-1]
        )

    def priority_step(self, queue: str, priority: int | None) -> int:
        levels = sorted(self.queue_steps(queue))
        number = max(0, min(priority or 0, HIGHEST))
        return levels[max(0, bisect(levels, number) - 1)]

    @property
    def shared_keys(self) -> tuple[str, ...]:
        """An empty tuple: in this layout, each key belongs to one queue."""
        return ()

    def describe_keys(self, queue: str) -> Iterator[tuple[str, str]]:
        """Yield a queue's keys, each described in a text with ``{}`` for the queue."""
        for step in self.queue_steps(queue):
            lowest = step == self.steps[0]
            what = "{}" if lowest else f"the priorities from {step} of {{}}"
            yield self.stream_key(queue, step), what
        yield self.delayed_key(queue), "the delayed messages of {}"

    def delayed_key(self, queue: str) -> str:
        return self._key(queue, ".delayed")

    def dead_key(self, queue: str) -> str:
        """Return the key of dead letters; ``queue`` is ``<name of a queue>.dead``."""
        return self._key(queue)

    def binding_keys(self, exchange: str) -> list[str]:
        return [f"{self.prefix}_qconsume.binding.{exchange}"]

    def _key(self, queue: str, kind: str = "") -> str:
        lane = next((end for end in COMPANION_SUFFIXES if queue.endswith(end)), "")
        base = self.prefix + queue.removesuffix(lane)
        if not lane + kind:
            return base
        # Redis hashes the text in the first braces, which a name may have already.
        tagged = base if _HASH_TAG.search(base) else f"{{{base}}}"
        return tagged + lane + kind


def create_layout(options: Mapping[str, t.Any]) -> StreamLayout:
    """Create the layout from the transport options.

    :raises ConfigurationError: for an unknown option, or an invalid value.
    """
    for name, value in options.items():
        check_option(name, value)
        check_known(name, OPTIONS, "Redis Streams")
    texts = {
        field: read_text(options, name, getattr(StreamLayout, field))
        for name, field in _TEXT_OPTIONS.items()
    }
    steps = options.get(_STEPS_OPTION, StreamLayout.steps)
    return StreamLayout(steps=read_priority_steps(steps), **texts)
