"""Faults of the network, provoked by the proxies of every server.

A half-open connection is noticed within two heartbeats: on RabbitMQ every connection,
since heartbeats are sent on all of them. On other brokers only a connection on which a
client awaits an answer; idle ones do no harm. The run measures when consuming resumes.
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
from .fault import FaultTarget
from .proxy import BOTH
from .proxy import DOWN
from .proxy import UP
from .proxy import Proxy

#: Seconds within which a silent connection is closed: two heartbeats.
NOTICED = 2 * fault.HEARTBEAT
#: Additional seconds for a busy machine.
BUSY = 5.0

_Apply = Callable[[FaultTarget, random.Random], None]


def reset(target: FaultTarget, chance: random.Random) -> None:
    """Reset all connections."""
    for proxy in target.proxies:
        proxy.cut(reset=True)


def reset_some(target: FaultTarget, chance: random.Random) -> None:
    """Reset a part of the connections."""
    for proxy in target.proxies:
        proxy.cut(reset=True, share=chance.uniform(0.2, 0.8), chance=chance)


#: Most resets of the fault that resets connections repeatedly.
MAX_RESETS = 6


def reset_often(target: FaultTarget, chance: random.Random) -> None:
    """Reset all connections repeatedly, soon after they are established."""
    for _ in range(chance.randint(3, MAX_RESETS)):
        reset(target, chance)
        FaultTarget.last(chance.uniform(0.2, 1.0))


def close_all(target: FaultTarget, chance: random.Random) -> None:
    """Close all connections regularly, from the broker's side."""
    for proxy in target.proxies:
        proxy.cut(reset=False)


def cut_within_a_frame(way: str, by_reset: bool) -> _Apply:
    """Return a fault that cuts each connection within the next bytes on it."""

    def apply(target: FaultTarget, chance: random.Random) -> None:
        for proxy in target.proxies:
            proxy.break_frames(way, reset=by_reset)
        # An idle connection is not cut; the proxy ends the fault afterwards.
        until = time.monotonic() + fault.HEARTBEAT
        while time.monotonic() < until and _sum(target.proxies, "breaking"):
            FaultTarget.last(0.05)

    return apply


def lose_bytes(ways: Sequence[str]) -> _Apply:
    """Return a fault that loses all bytes of open connections without an error."""

    def apply(target: FaultTarget, chance: random.Random) -> None:
        for proxy in target.proxies:
            proxy.swallow(ways)
        if target.broker not in fault.AMQP:
            return
        began = time.monotonic()
        wait_for(
            lambda: not _sum(target.proxies, "dead"),
            NOTICED + BUSY,
            message=lambda: (
                f"half-open connections are closed; {_sum(target.proxies, 'dead')}"
                f" are still open after {time.monotonic() - began:.1f} s"
            ),
        )
        target.noticed = time.monotonic() - began

    return apply


def refuse_new(target: FaultTarget, chance: random.Random) -> None:
    """Cut connections, and refuse new ones for a while."""
    for proxy in target.proxies:
        proxy.refuse()
        proxy.cut(reset=True)
    FaultTarget.last(chance.uniform(1, 4))


def slow_down(target: FaultTarget, chance: random.Random) -> None:
    """Delay all bytes, by less than a heartbeat."""
    for proxy in target.proxies:
        proxy.delay(chance.uniform(0.1, 0.5))
    FaultTarget.last(chance.uniform(2, 5))


def throttle(target: FaultTarget, chance: random.Random) -> None:
    """Let a few bytes per second through: too few for a message."""
    for proxy in target.proxies:
        proxy.throttle(chance.randint(20, 200))
    FaultTarget.last(chance.uniform(2, 5))


def close_window(ways: Sequence[str], low: float, high: float) -> _Apply:
    """Return a fault that stops reading, so that writers block for a while."""

    def apply(target: FaultTarget, chance: random.Random) -> None:
        for proxy in target.proxies:
            proxy.stall(ways)
        FaultTarget.last(chance.uniform(low, high))

    return apply


def _sum(proxies: Sequence[Proxy], what: str) -> int:
    return sum(proxy.state()[what] for proxy in proxies)


_TCP_FAULTS: tuple[tuple[str, _Apply, dict[str, t.Any]], ...] = (
    ("connections reset", reset, {"short": True}),
    ("some connections reset", reset_some, {}),
    ("connections reset again and again", reset_often, {"returns": MAX_RESETS}),
    ("connections closed", close_all, {}),
    ("cut within what we send, by a reset", cut_within_a_frame(UP, True), {}),
    ("cut within what we send, by closing", cut_within_a_frame(UP, False), {}),
    (
        "cut within what we receive, by a reset",
        cut_within_a_frame(DOWN, True),
        {"short": True},
    ),
    ("cut within what we receive, by closing", cut_within_a_frame(DOWN, False), {}),
    ("half-open both ways", lose_bytes(BOTH), {"short": True, "detection": NOTICED}),
    ("half-open, what we send is lost", lose_bytes([UP]), {"detection": NOTICED}),
    ("half-open, nothing comes to us", lose_bytes([DOWN]), {"detection": NOTICED}),
    ("connections refused", refuse_new, {}),
    ("slow connections", slow_down, {}),
    ("a few bytes a second", throttle, {"detection": NOTICED}),
    (
        "receive windows closed for a moment",
        close_window(BOTH, 1, fault.HEARTBEAT),
        {"detection": NOTICED},
    ),
    (
        "receive windows closed past the heartbeat",
        close_window(BOTH, NOTICED + 1, NOTICED + 4),
        {"detection": NOTICED},
    ),
    (
        "the broker's receive window closed",
        close_window([UP], NOTICED + 1, NOTICED + 4),
        {"detection": NOTICED},
    ),
)

FAULTS = tuple(
    Fault(name, apply, fault.NETWORKED, **more) for name, apply, more in _TCP_FAULTS
)
