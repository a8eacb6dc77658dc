"""Tables of products and their reservations."""

from __future__ import annotations

from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column

from ..extensions import db


class Product(db.Model):
    """A product of the shop."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    #: Cents.
    price: Mapped[int]
    in_stock: Mapped[int]
    #: Number of deliveries that were counted.
    deliveries: Mapped[int] = mapped_column(default=0)


#: Detail of a reservation without missing products.
ALL = "all in stock"


class Reservation(db.Model):
    """The reservation of an order. Its key is that of the order, so it happens once."""

    order_id: Mapped[int] = mapped_column(primary_key=True)
    #: Missing products. If there are any, nothing was reserved.
    detail: Mapped[str]

    @property
    def complete(self) -> bool:
        """True if the products were reserved."""
        return self.detail == ALL
