"""Where everything lies in Redis when queues are streams. No I/O.

===============================  ====================================================
``<queue>``                      stream of what has no priority, or a low one; what
                                 others add by ``XADD`` belongs here
``{<queue>}.priority.3``…        streams of the higher priority steps, read first
``{<queue>}.suspects``           stream of the lane of suspects
``{<queue>}.delayed``            sorted set by due time, of packed entries
``{<queue>}.dead``               sorted set by the time it is kept to, likewise
``_qconsume.binding.<exchange>``  set of ``routing key, pattern, queue``
===============================  ====================================================

The braces are hash tags: all keys of one queue are in one slot of a cluster, so every
script stays in one slot but the publish to several queues. A prefix that holds a hash
tag of its own (``"{shop}:"``) puts all keys into one slot, and that publish too.
"""

from __future__ import annotations

import re
import typing as t
from bisect import bisect
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import ConfigurationError
from ...settings import suggest
from ..redis.options import CONNECTION_OPTIONS
from ..redis.options import REPLICA_OPTIONS
from ..redis.options import check_option
from ..redis.options import read_priority_steps
from ..redis.options import read_text

HIGHEST = 9

#: Queues that lie beside another one.
COMPANION_SUFFIXES = (".suspects", ".dead")
_TAG = re.compile(r"\{[^}]+\}")
#: Transport options that say something about the layout, by the field they set.
_TEXTS = {"global_keyprefix": "prefix", "body_field": "body", "group": "group"}
_STEPS = "priority_steps"
#: Every transport option that there is.
OPTIONS = (*sorted([*_TEXTS, _STEPS, *CONNECTION_OPTIONS, *REPLICA_OPTIONS]),)


@dataclass(frozen=True)
class StreamLayout:
    """The names of all keys, of the group, and of the fields of an entry."""

    prefix: str = ""
    #: The field that holds the body.
    body: str = "body"
    #: The consumer group that reads the streams.
    group: str = "qconsume"
    steps: tuple[int, ...] = (0, 3, 6, 9)
    #: What stands between the parts of a binding.
    sep: str = "\x06\x16"

    def stream_key(self, queue: str, step: int = 0) -> str:
        """The stream of one step; the lowest has the queue's own name."""
        if step == self.steps[0]:
            return self._key(queue)
        return self._key(queue, f".priority.{step}")

    def stream_keys(self, queue: str) -> list[str]:
        """The streams of a queue, in the order in which they are read."""
        return [self.stream_key(queue, step) for step in self.queue_steps(queue)]

    def queue_steps(self, queue: str) -> tuple[int, ...]:
        """The steps that a queue has, the highest first.

        The lane of suspects has one only: it is read one by one, and a wait for
        several streams may end with a message of each.
        """
        return (
            self.steps[:1] if queue.endswith(COMPANION_SUFFIXES) else self.steps[::-1]
        )

    def priority_step(self, queue: str, priority: int | None) -> int:
        """The step of a priority."""
        levels = sorted(self.queue_steps(queue))
        number = max(0, min(priority or 0, HIGHEST))
        return levels[max(0, bisect(levels, number) - 1)]

    @property
    def shared_keys(self) -> tuple[str, ...]:
        """Keys of kombu's that all queues use: none."""
        return ()

    def describe_keys(self, queue: str) -> Iterator[tuple[str, str]]:
        """The keys of a queue, each with what it is; ``{}`` stands for the queue."""
        for step in self.queue_steps(queue):
            lowest = step == self.steps[0]
            what = "{}" if lowest else f"the priorities from {step} of {{}}"
            yield self.stream_key(queue, step), what
        yield self.delayed_key(queue), "the delayed messages of {}"

    def delayed_key(self, queue: str) -> str:
        return self._key(queue, ".delayed")

    def dead_key(self, queue: str) -> str:
        """The dead letters; ``queue`` is the name that ends with ``.dead``."""
        return self._key(queue)

    def binding_keys(self, exchange: str) -> list[str]:
        return [f"{self.prefix}_qconsume.binding.{exchange}"]

    def _key(self, queue: str, kind: str = "") -> str:
        lane = next((end for end in COMPANION_SUFFIXES if queue.endswith(end)), "")
        base = self.prefix + queue.removesuffix(lane)
        if not lane + kind:
            return base
        # Redis hashes what the first braces hold, which a name may have already.
        tagged = base if _TAG.search(base) else f"{{{base}}}"
        return tagged + lane + kind


def create_layout(options: Mapping[str, t.Any]) -> StreamLayout:
    """The layout that these transport options ask for.

    :raises ConfigurationError: for an option that is not known, or makes no sense.
    """
    for name, value in options.items():
        check_option(name, value)
        if name not in OPTIONS:
            raise ConfigurationError(
                f"'QCONSUME_TRANSPORT_OPTIONS' has '{name}', which is no option for"
                f" Redis Streams{suggest(name, OPTIONS)} There are:"
                f" {', '.join(OPTIONS)}."
            )
    texts = {
        field: read_text(options, name, getattr(StreamLayout, field))
        for name, field in _TEXTS.items()
    }
    return StreamLayout(
        steps=read_priority_steps(options.get(_STEPS, StreamLayout.steps)), **texts
    )
