"""A mail that was sent (here: only saved)."""

from __future__ import annotations

import time

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column

from ..extensions import db


class Mail(db.Model):
    """A mail. No order leads to two of the same subject."""

    __table_args__ = (UniqueConstraint("order_id", "subject"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int]
    to: Mapped[str]
    subject: Mapped[str]
    text: Mapped[str]
    at: Mapped[float] = mapped_column(default=time.time)
