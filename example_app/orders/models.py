"""Tables of orders, their items, events and payments."""

from __future__ import annotations

import time

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column
from sqlalchemy.orm import relationship

from ..extensions import db

PLACED = "placed"
BILLED = "billed"
REJECTED = "rejected"


class Order(db.Model):
    """An order of a customer."""

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    email: Mapped[str]
    card: Mapped[str]
    #: Cents.
    total: Mapped[int]
    status: Mapped[str] = mapped_column(default=PLACED, index=True)
    items: Mapped[list[OrderItem]] = relationship(lazy="selectin")
    events: Mapped[list[OrderEvent]] = relationship(
        lazy="selectin", order_by="OrderEvent.id"
    )

    def add_event(self, name: str, detail: str = "") -> None:
        """Add an event to the order."""
        self.events.append(OrderEvent(name=name, detail=detail))

    def has_event(self, name: str) -> bool:
        """Return whether the order has an event of this name."""
        return any(event.name == name for event in self.events)


class OrderItem(db.Model):
    """One line of an order, with the price at that time."""

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id), index=True)
    product_id: Mapped[int]
    name: Mapped[str]
    quantity: Mapped[int]
    #: Cents.
    price: Mapped[int]


class OrderEvent(db.Model):
    """A step in the progress of an order."""

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id), index=True)
    name: Mapped[str]
    detail: Mapped[str] = mapped_column(default="")
    at: Mapped[float] = mapped_column(default=time.time)


class UnpublishedOrder(db.Model):
    """An order whose message the broker may not have.

    The row is written in the order's transaction, and deleted once the broker has
    confirmed the message.
    """

    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id), primary_key=True)


class Payment(db.Model):
    """A payment. Its key is that of the order, so an order cannot be paid twice."""

    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id), primary_key=True)
    receipt: Mapped[str]
    amount: Mapped[int]
