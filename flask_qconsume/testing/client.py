"""Runs single messages through an app, without a broker and without waiting.

Time is virtual: the result tells the delay of a retry, and the client does not wait.
"""

from __future__ import annotations

import contextlib
import typing as t
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field

from flask import Flask

from ..appconsumers import get_app_consumers
from ..handling.dispatch import dispatch
from ..handling.payload import encode
from ..message import Message
from ..message import Outgoing
from ..outcomes import Outcome
from ..outcomes import Retry
from ..registration.registry import find_consumer
from .capture import Published


@dataclass(frozen=True)
class Delivered:
    """The result of delivering one message: outcome, error and published messages."""

    #: An ``Ack``, ``Retry``, ``Reject`` or ``Drop``.
    outcome: Outcome
    #: The exception of the handler, a hook or the schema, if any.
    error: BaseException | None
    #: Messages that the app published meanwhile; none of them was sent.
    published: list[Published] = field(default_factory=list)

    @property
    def next_delay(self) -> float | None:
        """Seconds until the next attempt; ``None`` unless the outcome is a retry."""
        return self.outcome.delay if isinstance(self.outcome, Retry) else None


class TestClient:
    """Runs messages through an app's hooks, schemas, handlers and retry policies.

    ``qconsume.test_client(app)`` returns one.
    """

    __test__ = False  # Keep pytest from collecting the class for its name.

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._consumers = get_app_consumers(app)

    def deliver(
        self,
        consumer: str,
        body: t.Any = None,
        *,
        headers: t.Mapping[str, t.Any] | None = None,
        attempt: int = 1,
        content_type: str | None = None,
        catch: bool = True,
        **fields: t.Any,
    ) -> Delivered:
        """Deliver one message to a consumer, and return its outcome.

        :param consumer: The consumer's full name, such as ``"orders.bill"``.
        :param body: Encoded by ``content_type``, as ``publish`` does. ``bytes`` are
            delivered as they are, so that a test can deliver wrong bodies.
        :param headers: The message's headers.
        :param attempt: The number of the attempt; the first is 1.
        :param content_type: By default, the type that belongs to the body's class (such
            as a protobuf message's), or else ``application/json``.
        :param catch: If false, raise the handler's exception here instead of keeping it
            in ``error``, unless an error handler or a raised outcome decided.
        :param fields: Further fields of the :class:`~flask_qconsume.Message`, such as
            ``id``, ``key`` or ``routing_key``.
        :raises UnknownConsumer: if no consumer has that name.
        """
        declared = find_consumer(self._consumers.consumers, consumer)
        formats = self._consumers.formats
        if content_type is None:
            content_type = formats.type_of(body)
        routing_key = fields.get("routing_key", declared.queue)
        raw, more = encode(body, content_type, formats, routing_key)
        message = Message(
            raw=raw,
            queue=declared.queue,
            headers={**more, **(headers or {})},
            attempt=attempt,
            content_type=content_type,
            **{"id": str(uuid.uuid4()), **fields},
        )
        with self.capture() as published:
            result = dispatch(
                self._app, declared, message, events=self._consumers.events
            )
        if not catch and result.error is not None and not result.foreseen:
            raise result.error
        return Delivered(result.outcome, result.error, list(published))

    @contextlib.contextmanager
    def capture(self) -> Iterator[list[Published]]:
        """Within the block, collect published messages instead of sending them."""
        published: list[Published] = []
        decoders = self._consumers.formats.decoders()

        def keep(message: Outgoing) -> None:
            published.append(Published.from_outgoing(message, decoders))

        with self._consumers.capture_published(keep):
            yield published
