"""What the shop sells, and what of it is set aside for an order."""

from __future__ import annotations

from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column

from ..extensions import db


class Product(db.Model):
    """Something that the shop sells."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    #: Cents.
    price: Mapped[int]
    in_stock: Mapped[int]
    #: How many deliveries of it have come so far.
    deliveries: Mapped[int] = mapped_column(default=0)


#: What a reservation says if nothing was missing.
ALL = "all in stock"


class Reservation(db.Model):
    """An order whose goods were looked for; its key keeps that from happening twice."""

    order_id: Mapped[int] = mapped_column(primary_key=True)
    #: What was missing, if anything. Then nothing at all was set aside.
    detail: Mapped[str]

    @property
    def complete(self) -> bool:
        """True if the goods were set aside."""
        return self.detail == ALL
