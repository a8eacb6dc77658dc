"""The copies that a link makes of its messages: where they go, what they carry. No I/O.

A copy must be publishable whatever the original carried: one that can never be sent
would be tried for ever. What has to be left out is named in a header of the copy.
"""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from amqp.serialization import dumps

from ...broker import headers as own_headers
from ...broker import properties
from ...broker.link import Forward
from ...broker.link import Lane
from ...broker.topology import QueuePlan
from ...message import Message
from ...text import shorten
from .amqp import frames
from .amqp.properties import written
from .pending_publish import Parcel
from .pending_publish import expiration
from .wait_queues import MAX_DELAY
from .wait_queues import retry_step

#: Written by the broker. A message that expires from a wait queue and whose x-death
#: names the queue that it goes to is taken for one that goes round in circles, and
#: dropped. https://www.rabbitmq.com/docs/dlx#automatic-dead-lettering-cycles
_BROKERS = (
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
    "x-delivery-count",
    # Routed on when the copy is published.
    "CC",
    "BCC",
)

CHANGED = own_headers.CHANGED

#: The order in which our own long headers are cut, and to how much.
_CUTS = (
    (own_headers.TRACEBACK, 4_000),
    (own_headers.DETAILS, 1_000),
    (own_headers.TRACEBACK, 500),
    (own_headers.ERROR, 200),
    (own_headers.REASON, 200),
)

_MAX_SHORT = 255


def forwarded(
    forward: Forward, plan: QueuePlan, app_exchange: str, frame_max: int
) -> Parcel:
    """The copy that a forward asks for."""
    message = forward.delivery.message
    basic = copied(message, forward.headers, frame_max)
    if forward.lane is Lane.MAIN and forward.delay > 0:
        # A longer one is cut: tried too early it is not lost, tried for ever it would
        # hold its place.
        delay = min(forward.delay, MAX_DELAY)
        step = retry_step(app_exchange, delay)
        basic["expiration"] = expiration(delay)
        return Parcel(
            basic,
            message.raw,
            exchange=step.name,
            routing_key=plan.name,
            step=step,
            ours=True,
        )
    if forward.expires is not None:
        basic["expiration"] = expiration(forward.expires)
    return to_queue(basic, message.raw, _queue(plan, forward.lane))


def to_queue(basic: Mapping[str, t.Any], body: bytes, queue: str) -> Parcel:
    """A message for one queue, and for nobody else."""
    return Parcel(basic, body, exchange="", routing_key=queue, ours=True)


def copied(
    message: Message, headers: Mapping[str, t.Any], frame_max: int
) -> dict[str, t.Any]:
    """The properties of a copy, made so that they can be sent."""
    basic = properties.encode_copy(message, headers)
    for name, value in basic.items():
        if isinstance(value, str):
            basic[name] = _shortest(value)
    kept = {k: v for k, v in headers.items() if k not in _BROKERS}
    basic["headers"] = _fitting(basic, _sendable(kept), frame_max)
    return basic


def _queue(plan: QueuePlan, lane: Lane) -> str:
    names = {Lane.MAIN: plan.name, Lane.SUSPECTS: plan.suspects, Lane.DEAD: plan.dead}
    return names[lane]


def _shortest(text: str) -> str:
    """Text that fits a short string; escaping what was no UTF-8 made it longer."""
    return text.encode("utf-8", "replace")[:_MAX_SHORT].decode("utf-8", "ignore")


def _sendable(headers: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The headers that AMQP can carry; others as text."""
    sent: dict[str, t.Any] = {}
    for name, value in headers.items():
        if _can_be_sent(name, value):
            sent[name] = value
        elif _can_be_sent(name, ""):
            sent[name] = _as_text(value)
            _note(sent, name)
        else:
            _note(sent, name)
    return sent


def _can_be_sent(name: str, value: t.Any) -> bool:
    try:
        dumps("F", ({name: value},))
    except Exception:
        return False
    return True


def _as_text(value: t.Any) -> str:
    try:
        return shorten(str(value), own_headers.MAX_ERROR)
    except Exception:
        return f"({type(value).__name__})"


def _note(headers: dict[str, t.Any], name: str) -> None:
    before = headers.get(CHANGED)
    names = f"{before}, {name}" if isinstance(before, str) else str(name)
    headers[CHANGED] = shorten(names, own_headers.MAX_ERROR)


def _fitting(
    basic: Mapping[str, t.Any], headers: dict[str, t.Any], frame_max: int
) -> dict[str, t.Any]:
    """The headers, cut until they fit one frame: a header frame cannot be split."""
    # Room for an expiration, which comes later.
    limit = frame_max - 64
    cuts = iter(_CUTS)
    while frames.header_size(written({**basic, "headers": headers})) > limit:
        cut = next(cuts, None)
        if cut is not None:
            _cut(headers, *cut)
        else:
            _drop_largest(headers)
    return headers


def _cut(headers: dict[str, t.Any], name: str, length: int) -> None:
    text = headers.get(name)
    if isinstance(text, str):
        headers[name] = shorten(text, length)


def _drop_largest(headers: dict[str, t.Any]) -> None:
    sizes = {name: len(dumps("F", ({name: headers[name]},))) for name in headers}
    sizes.pop(CHANGED, None)
    largest = max(sizes, key=lambda name: sizes[name])
    del headers[largest]
    _note(headers, largest)
