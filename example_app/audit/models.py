"""One message that went through the shop."""

from __future__ import annotations

from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column

from ..extensions import db


class AuditEntry(db.Model):
    """One message. A second copy of it is the same one."""

    id: Mapped[int] = mapped_column(primary_key=True)
    message_id: Mapped[str] = mapped_column(unique=True)
    routing_key: Mapped[str]
    #: Which request it came from, over however many messages.
    request_id: Mapped[str]
    body: Mapped[str]
    published_at: Mapped[float]
    received_at: Mapped[float]

    @property
    def latency(self) -> float:
        """Milliseconds from publishing to here."""
        return 1000 * (self.received_at - self.published_at)
