"""Runs single messages through an app, without a broker and without waiting.

Time is virtual: a retry is not waited for, its delay is told.
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
    """What became of a message given to :meth:`TestClient.deliver`."""

    #: An ``Ack``, ``Retry``, ``Reject`` or ``Drop``.
    outcome: Outcome
    #: What the handler, a hook or the schema raised.
    error: BaseException | None
    #: What was published meanwhile; it went nowhere.
    published: list[Published] = field(default_factory=list)

    @property
    def next_delay(self) -> float | None:
        """Seconds until the next attempt; ``None`` if there is none."""
        return self.outcome.delay if isinstance(self.outcome, Retry) else None


class TestClient:
    """Runs messages through the real dispatch of ``app``: hooks, schema, handler,
    policy.

    Made by ``qconsume.test_client(app)``.
    """

    __test__ = False  # Not a test, whatever pytest thinks of the name.

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
        """Deliver one message to a consumer, and return what became of it.

        :param consumer: Its full name, ``"orders.bill"``.
        :param body: Encoded by ``content_type``, as ``publish`` does; ``bytes`` are
            delivered as they are, to try out bodies that are wrong.
        :param attempt: 1 for the first.
        :param content_type: JSON unless given, or what the body itself is.
        :param catch: If false, an exception that was not foreseen (by an error handler,
            or as an outcome) is raised here instead of being kept in ``error``.
        :param fields: Further fields of the :class:`~flask_qconsume.Message`, such as
            ``id``, ``key`` or ``routing_key``.
        :raises UnknownConsumer: if there is none of that name.
        """
        found = find_consumer(self._consumers.consumers, consumer)
        formats = self._consumers.formats
        if content_type is None:
            content_type = formats.type_of(body)
        routing_key = fields.get("routing_key", found.queue)
        raw, more = encode(body, content_type, formats, routing_key)
        message = Message(
            raw=raw,
            queue=found.queue,
            headers={**more, **(headers or {})},
            attempt=attempt,
            content_type=content_type,
            **{"id": str(uuid.uuid4()), **fields},
        )
        with self.capture() as published:
            result = dispatch(self._app, found, message)
        if not catch and result.error is not None and not result.foreseen:
            raise result.error
        return Delivered(result.outcome, result.error, list(published))

    @contextlib.contextmanager
    def capture(self) -> Iterator[list[Published]]:
        """Keep what the app publishes within the block, instead of sending it."""
        published: list[Published] = []
        decoders = self._consumers.formats.decoders()

        def keep(message: Outgoing) -> None:
            published.append(Published.of(message, decoders))

        with self._consumers.capture_published(keep):
            yield published
