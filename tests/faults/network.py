"""What a network does to connections: each fault of the proxy, on every broker.

A connection that is half-open is noticed within two heartbeats: on RabbitMQ each of
them, since there something is always sent. Elsewhere it is those on which somebody
waits for an answer; others do no harm, and what counts is how long it takes until
consuming goes on.
"""

from __future__ import annotations

import random
import time
import typing as t
from collections.abc import Callable
from collections.abc import Sequence

from ..waiting import wait_for
from . import fault
from .fault import Fault
from .fault import Scene
from .proxy import BOTH
from .proxy import DOWN
from .proxy import UP
from .proxy import Proxy

#: Seconds within which a silent connection is given up: two heartbeats.
NOTICED = 2 * fault.HEARTBEAT
#: Seconds more that this may take on a machine that is busy.
BUSY = 5.0

_Apply = Callable[[Scene, random.Random], None]


def reset(scene: Scene, chance: random.Random) -> None:
    """All connections are reset."""
    for proxy in scene.proxies:
        proxy.cut(reset=True)


def reset_some(scene: Scene, chance: random.Random) -> None:
    """A part of them is reset."""
    for proxy in scene.proxies:
        proxy.cut(reset=True, share=chance.uniform(0.2, 0.8), chance=chance)


#: How often they are reset at the most, where that is again and again.
OFTEN = 6


def reset_often(scene: Scene, chance: random.Random) -> None:
    """They are reset again and again, as soon as they are there."""
    for _ in range(chance.randint(3, OFTEN)):
        reset(scene, chance)
        Scene.last(chance.uniform(0.2, 1.0))


def finished(scene: Scene, chance: random.Random) -> None:
    """All connections are ended by the broker's side, in order."""
    for proxy in scene.proxies:
        proxy.cut(reset=False)


def cut_within_a_frame(way: str, by_reset: bool) -> _Apply:
    """Each connection ends in the middle of what flows on it next."""

    def apply(scene: Scene, chance: random.Random) -> None:
        for proxy in scene.proxies:
            proxy.break_frames(way, reset=by_reset)
        # Where nothing flows nothing breaks: those are mended afterwards.
        until = time.monotonic() + fault.HEARTBEAT
        while time.monotonic() < until and _sum(scene.proxies, "breaking"):
            Scene.last(0.05)

    return apply


def half_open(ways: Sequence[str]) -> _Apply:
    """Whatever is sent is lost, and nobody says so; new connections are fine."""

    def apply(scene: Scene, chance: random.Random) -> None:
        for proxy in scene.proxies:
            proxy.swallow(ways)
        if scene.place not in fault.AMQP:
            return
        began = time.monotonic()
        wait_for(
            lambda: not _sum(scene.proxies, "dead"),
            NOTICED + BUSY,
            message=lambda: (
                f"half-open connections are given up; {_sum(scene.proxies, 'dead')}"
                f" are still open after {time.monotonic() - began:.1f} s"
            ),
        )
        scene.noticed = time.monotonic() - began

    return apply


def refused(scene: Scene, chance: random.Random) -> None:
    """Connections are cut, and new ones refused for a while."""
    for proxy in scene.proxies:
        proxy.refuse()
        proxy.cut(reset=True)
    Scene.last(chance.uniform(1, 4))


def slow(scene: Scene, chance: random.Random) -> None:
    """Each piece takes long, but shorter than a heartbeat."""
    for proxy in scene.proxies:
        proxy.delay(chance.uniform(0.1, 0.5))
    Scene.last(chance.uniform(2, 5))


def trickling(scene: Scene, chance: random.Random) -> None:
    """A few bytes a second come through: too few for a message."""
    for proxy in scene.proxies:
        proxy.throttle(chance.randint(20, 200))
    Scene.last(chance.uniform(2, 5))


def closed_window(ways: Sequence[str], low: float, high: float) -> _Apply:
    """Nobody reads, so that who writes is stuck; it goes on afterwards."""

    def apply(scene: Scene, chance: random.Random) -> None:
        for proxy in scene.proxies:
            proxy.stall(ways)
        Scene.last(chance.uniform(low, high))

    return apply


def _sum(proxies: Sequence[Proxy], what: str) -> int:
    return sum(proxy.state()[what] for proxy in proxies)


_TCP_FAULTS: tuple[tuple[str, _Apply, dict[str, t.Any]], ...] = (
    ("connections reset", reset, {"short": True}),
    ("some connections reset", reset_some, {}),
    ("connections reset again and again", reset_often, {"returns": OFTEN}),
    ("connections closed", finished, {}),
    ("cut within what we send, by a reset", cut_within_a_frame(UP, True), {}),
    ("cut within what we send, by closing", cut_within_a_frame(UP, False), {}),
    (
        "cut within what we receive, by a reset",
        cut_within_a_frame(DOWN, True),
        {"short": True},
    ),
    ("cut within what we receive, by closing", cut_within_a_frame(DOWN, False), {}),
    ("half-open both ways", half_open(BOTH), {"short": True, "detection": NOTICED}),
    ("half-open, what we send is lost", half_open([UP]), {"detection": NOTICED}),
    ("half-open, nothing comes to us", half_open([DOWN]), {"detection": NOTICED}),
    ("connections refused", refused, {}),
    ("slow connections", slow, {}),
    ("a few bytes a second", trickling, {"detection": NOTICED}),
    (
        "receive windows closed for a moment",
        closed_window(BOTH, 1, fault.HEARTBEAT),
        {"detection": NOTICED},
    ),
    (
        "receive windows closed past the heartbeat",
        closed_window(BOTH, NOTICED + 1, NOTICED + 4),
        {"detection": NOTICED},
    ),
    (
        "the broker's receive window closed",
        closed_window([UP], NOTICED + 1, NOTICED + 4),
        {"detection": NOTICED},
    ),
)

FAULTS = tuple(Fault(name, apply, **more) for name, apply, more in _TCP_FAULTS)
