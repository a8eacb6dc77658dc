"""The targets: each takes arbitrary bytes, and raises if something is wrong.

What is wrong is an ``AssertionError`` or any other exception that no caller expects;
and that a few hundred bytes take long.
"""

from __future__ import annotations

from collections.abc import Callable

from . import bodies
from . import inbound
from . import outbound
from . import streams
from . import wires
from . import words
from .cost import bounded
from .taps import Taps

Target = Callable[[bytes], None]


def amqp(data: bytes) -> None:
    """Our reading of a stream against py-amqp's, and of one in other pieces."""
    taps = Taps(data)
    size = taps.number() or 4096
    wires.compare(streams.stream(taps), size)


def _costed(target: Target) -> Target:
    return lambda data: bounded(lambda: target(data))


_TARGETS: dict[str, Target] = {
    "amqp": amqp,
    "rabbitmq": inbound.rabbitmq,
    "redis": inbound.redis,
    "redis-streams": inbound.redis_streams,
    "kafka": inbound.kafka,
    "bodies": bodies.bodies,
    "json": bodies.json_bodies,
    "costs": bodies.costs,
    "texts": bodies.texts,
    "settings": words.settings,
    "keys": words.keys,
    "patterns": words.patterns,
    "times": words.times,
    "delays": words.delays,
    "publishing": outbound.publishing,
    "properties": outbound.written,
}

TARGETS: dict[str, Target] = {name: _costed(each) for name, each in _TARGETS.items()}
