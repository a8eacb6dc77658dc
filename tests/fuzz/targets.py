"""The targets: each takes arbitrary bytes, and raises if something is wrong.

What is wrong is an ``AssertionError`` or any other exception that no caller expects.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from . import bodies
from . import inbound
from . import outbound
from . import streams
from . import wires
from . import words
from .taps import Taps

Target = Callable[[bytes], None]


def amqp(data: bytes) -> None:
    """Our reading of a stream against py-amqp's, and of one in other pieces."""
    taps = Taps(data)
    size = taps.number() or 4096
    stream = streams.stream(taps)
    us, them = wires.heard_by_us(stream, size), wires.heard_by_py_amqp(stream)
    both = zip(us.events, them.events, strict=False)
    for our_event, their_event in both:
        assert our_event == their_event
    assert len(us.events) >= len(them.events), (us, them)
    if them.to_the_end:
        assert us.to_the_end, us.error
        assert len(us.events) == len(them.events)
    _delivers_what_is_written(us, stream)
    assert repr(wires.messages(stream, size)) == repr(wires.messages(stream, 1))


def _delivers_what_is_written(us: wires.Heard, stream: bytes) -> None:
    """Also where py-amqp has given up: nothing but the messages that are there."""
    found = [event for event in us.events if event[0] == "delivered"]
    for event, written in itertools.zip_longest(found, wires.by_the_book(stream)):
        if event is None:
            break
        assert (event[1], event[7]) == (written.channel, written.body)
        assert event[2:7] == written.arguments


TARGETS: dict[str, Target] = {
    "amqp": amqp,
    "rabbitmq": inbound.rabbitmq,
    "redis": inbound.redis,
    "redis-streams": inbound.redis_streams,
    "kafka": inbound.kafka,
    "bodies": bodies.bodies,
    "texts": bodies.texts,
    "settings": words.settings,
    "keys": words.keys,
    "patterns": words.patterns,
    "times": words.times,
    "delays": words.delays,
    "publishing": outbound.publishing,
}
