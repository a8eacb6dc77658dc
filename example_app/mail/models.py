"""Table of sent mails. This shop only saves them."""

from __future__ import annotations

import time

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column

from ..extensions import db


class Mail(db.Model):
    """A mail. Each order has at most one mail with the same subject."""

    __table_args__ = (UniqueConstraint("order_id", "subject"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int]
    to: Mapped[str]
    subject: Mapped[str]
    text: Mapped[str]
    at: Mapped[float] = mapped_column(default=time.time)
