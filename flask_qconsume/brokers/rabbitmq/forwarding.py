"""Copies of messages that a link forwards: their address and properties. No I/O.

It must be possible to publish a copy whatever the original contains: a copy that can
never be sent would be tried for ever. Headers that had to be changed or left out are
named in a header of the copy.
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
from .amqp.properties import encode_properties
from .pending_publish import PendingPublish
from .pending_publish import encode_expiration
from .wait_queues import MAX_DELAY
from .wait_queues import choose_retry_queue

#: Headers that a copy must not carry.
_DROPPED_HEADERS = (
    # Written by the broker. If a message expires in a wait queue and its x-death names
    # the queue that it goes to, the broker drops it as running in a circle.
    # https://www.rabbitmq.com/docs/dlx#automatic-dead-lettering-cycles
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
    "x-delivery-count",
    # Further queues that the broker would route the copy to.
    "CC",
    "BCC",
)

#: Our long headers, in the order in which they are shortened, and to how many
#: characters.
_CUTS = (
    (own_headers.TRACEBACK, 4_000),
    (own_headers.DETAILS, 1_000),
    (own_headers.TRACEBACK, 500),
    (own_headers.ERROR, 200),
    (own_headers.REASON, 200),
)

#: Bytes of a short string of AMQP.
_MAX_SHORT_STRING = 255

#: Bytes kept free for an expiration, which is added to the copied properties later.
_EXPIRATION_SIZE = 64


def build_forward(
    forward: Forward, plan: QueuePlan, app_exchange: str, frame_max: int
) -> PendingPublish:
    """Build the copy of a message for a retry, the suspects or the dead letters."""
    message = forward.delivery.message
    basic = copy_properties(message, forward.headers, frame_max)
    if forward.lane is Lane.MAIN and forward.delay > 0:
        # A longer delay is cut: a retry that comes too early is harmless, a forward
        # that fails again and again is not.
        delay = min(forward.delay, MAX_DELAY)
        queue = choose_retry_queue(app_exchange, delay)
        basic["expiration"] = encode_expiration(delay)
        return PendingPublish(
            basic,
            message.raw,
            exchange=queue.name,
            routing_key=plan.name,
            wait_queue=queue,
            ours=True,
        )
    if forward.expires is not None:
        basic["expiration"] = encode_expiration(forward.expires)
    return address_to_queue(basic, message.raw, forward.lane.queue_of(plan))


def address_to_queue(
    basic: Mapping[str, t.Any], body: bytes, queue: str
) -> PendingPublish:
    """Create a message to be published directly to one queue, by the queue's name."""
    return PendingPublish(basic, body, exchange="", routing_key=queue, ours=True)


def copy_properties(
    message: Message, headers: Mapping[str, t.Any], frame_max: int
) -> dict[str, t.Any]:
    """Return the AMQP properties for a copy of a message, which AMQP can encode.

    :param frame_max: Bytes that a frame may have.
    """
    basic = properties.encode_copy(message, headers)
    for name, value in basic.items():
        if isinstance(value, str):
            basic[name] = _fit_short_string(value)
    kept_headers = {k: v for k, v in headers.items() if k not in _DROPPED_HEADERS}
    basic["headers"] = _fit_frame(basic, _make_sendable(kept_headers), frame_max)
    return basic


def _fit_short_string(text: str) -> str:
    """Cut a text to the 255 bytes that AMQP allows for a short string."""
    data = text.encode("utf-8", "replace")
    return data[:_MAX_SHORT_STRING].decode("utf-8", "ignore")


def _make_sendable(headers: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Replace header values that AMQP cannot encode by texts."""
    sent: dict[str, t.Any] = {}
    for name, value in headers.items():
        if _can_be_sent(name, value):
            sent[name] = value
        elif _can_be_sent(name, ""):
            sent[name] = _to_text(value)
            _mark_changed(sent, name)
        else:
            _mark_changed(sent, name)
    return sent


def _can_be_sent(name: str, value: t.Any) -> bool:
    try:
        dumps("F", ({name: value},))
    except Exception:
        return False
    return True


def _to_text(value: t.Any) -> str:
    try:
        return shorten(str(value), own_headers.MAX_ERROR)
    except Exception:
        return f"({type(value).__name__})"


def _mark_changed(headers: dict[str, t.Any], name: str) -> None:
    before = headers.get(own_headers.CHANGED)
    names = f"{before}, {name}" if isinstance(before, str) else str(name)
    headers[own_headers.CHANGED] = shorten(names, own_headers.MAX_ERROR)


def _fit_frame(
    basic: Mapping[str, t.Any], headers: dict[str, t.Any], frame_max: int
) -> dict[str, t.Any]:
    """Shorten headers until all of them fit into one frame, as AMQP requires."""
    limit = frame_max - _EXPIRATION_SIZE
    cuts = iter(_CUTS)
    while (
        frames.header_frame_size(encode_properties({**basic, "headers": headers}))
        > limit
    ):
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
    sizes.pop(own_headers.CHANGED, None)
    largest = max(sizes, key=lambda name: sizes[name])
    del headers[largest]
    _mark_changed(headers, largest)
