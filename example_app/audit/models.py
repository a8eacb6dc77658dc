"""Table of the messages that the shop published."""

from __future__ import annotations

from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column

from ..extensions import db


class AuditEntry(db.Model):
    """A message, saved once however often it is delivered."""

    id: Mapped[int] = mapped_column(primary_key=True)
    message_id: Mapped[str] = mapped_column(unique=True)
    routing_key: Mapped[str]
    #: Id of the HTTP request that led to the message, also through other messages.
    request_id: Mapped[str]
    body: Mapped[str]
    published_at: Mapped[float]
    received_at: Mapped[float]

    @property
    def latency(self) -> float:
        """Milliseconds from publishing to handling."""
        return 1000 * (self.received_at - self.published_at)
