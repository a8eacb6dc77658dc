"""What the shop sells, and what of it is promised to somebody."""

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
    #: Below zero: promised, and still to come.
    in_stock: Mapped[int]
    #: How many deliveries of it have come so far.
    deliveries: Mapped[int] = mapped_column(default=0)


class Reservation(db.Model):
    """An order whose goods were set aside; its key keeps that from happening twice."""

    order_id: Mapped[int] = mapped_column(primary_key=True)
    detail: Mapped[str]
