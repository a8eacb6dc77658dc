"""Consumers that reserve products for orders, and count deliveries."""

from __future__ import annotations

import typing as t

from flask import current_app

from ..extensions import db
from ..messages import NewsMessage
from ..messages import OrderMessage
from ..messages import RestockMessage
from ..request_ids import publish_with_request_id
from .blueprint import bp
from .models import ALL
from .models import Product
from .models import Reservation

#: Number of items below which a product is reordered, and number per delivery.
LOW = 10
BATCH = 25


@bp.consumer("reservations", routing_key="order.billed", schema=OrderMessage)
def reserve(order: dict[str, t.Any]) -> None:
    """Reserve the products of a billed order, or publish that some are missing.

    The page refuses orders for more than is in stock. But if several orders come at the
    same time, the stock may not suffice for all of them.
    """
    with db.session.begin():
        reservation = db.session.get(Reservation, order["id"]) or set_aside(order)
    said = "reserved" if reservation.complete else "missing"
    news = {"order_id": reservation.order_id, "detail": reservation.detail}
    publish_with_request_id(
        f"stock.{said}",
        NewsMessage().dump(news),
        id=f"order-{reservation.order_id}-{said}",
    )
    reorder()


@bp.consumer("restock", schema=RestockMessage)
def receive(restock: dict[str, t.Any]) -> None:
    """Add a delivery of the supplier to the stock, once."""
    with db.session.begin():
        db.session.execute(
            db.update(Product)
            .filter_by(id=restock["product_id"], deliveries=restock["number"])
            .values(
                in_stock=Product.in_stock + restock["quantity"],
                deliveries=Product.deliveries + 1,
            )
        )


def set_aside(order: dict[str, t.Any]) -> Reservation:
    """Take all items of an order out of the stock, or none."""
    taken: list[dict[str, t.Any]] = []
    missing: list[str] = []
    for item in order["items"]:
        if take(item):
            taken.append(item)
        else:
            missing.append(item["name"])
    if missing:
        for item in taken:
            put_back(item)
    detail = f"sold out: {', '.join(missing)}" if missing else ALL
    reservation = Reservation(order_id=order["id"], detail=detail)
    db.session.add(reservation)
    return reservation


def take(item: dict[str, t.Any]) -> bool:
    """Take an item out of the stock, and return whether there was enough.

    One statement checks and takes, so that no other process can take it in between.
    """
    taken = db.session.scalar(
        db.update(Product)
        .filter_by(id=item["product_id"])
        .where(Product.in_stock >= item["quantity"])
        .values(in_stock=Product.in_stock - item["quantity"])
        .returning(Product.id)
    )
    return taken is not None


def put_back(item: dict[str, t.Any]) -> None:
    """Return an item to the stock."""
    db.session.execute(
        db.update(Product)
        .filter_by(id=item["product_id"])
        .values(in_stock=Product.in_stock + item["quantity"])
    )


def reorder() -> None:
    """Order products that run low: publish a message that arrives with the delivery.

    Until then, several orders may ask for the same delivery; it is counted once.
    """
    with db.session.begin():
        low = db.session.scalars(db.select(Product).where(Product.in_stock < LOW)).all()
    for product in low:
        restock = {
            "product_id": product.id,
            "number": product.deliveries,
            "quantity": BATCH,
        }
        publish_with_request_id(
            "restock",
            RestockMessage().dump(restock),
            id=f"restock-{product.id}-{product.deliveries}",
            delay=current_app.config["SHOP_SUPPLIER_SECONDS"],
        )
