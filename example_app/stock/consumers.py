"""Goods set aside for those who paid, and brought by the supplier when they run low."""

from __future__ import annotations

import typing as t

from flask import current_app

from ..extensions import db
from ..messages import NewsMessage
from ..messages import OrderMessage
from ..messages import RestockMessage
from ..tracing import say
from .blueprint import bp
from .models import ALL
from .models import Product
from .models import Reservation

#: Fewer than this, and the supplier is asked for more.
LOW = 10
BATCH = 25


@bp.consumer("reservations", routing_key="order.billed", schema=OrderMessage)
def reserve(order: dict[str, t.Any]) -> None:
    """Set goods aside for an order that was paid for, or tell that some are missing.

    The shop's page takes no order for more than there is. Of orders at the same time
    only some may find enough.
    """
    with db.session.begin():
        reservation = db.session.get(Reservation, order["id"]) or set_aside(order)
    said = "reserved" if reservation.complete else "missing"
    news = {"order_id": reservation.order_id, "detail": reservation.detail}
    say(
        f"stock.{said}",
        NewsMessage().dump(news),
        id=f"order-{reservation.order_id}-{said}",
    )
    reorder()


@bp.consumer("restock", schema=RestockMessage)
def receive(restock: dict[str, t.Any]) -> None:
    """Count what the supplier brought; a delivery that was counted changes nothing."""
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
    """Take the items of an order out of the stock: all of them, or none."""
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
    """Take an item out of the stock if there is enough; whether there was.

    Looking and taking are one statement, so that no other process takes it in between.
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
    """Give back what was taken for an order that lacks something else."""
    db.session.execute(
        db.update(Product)
        .filter_by(id=item["product_id"])
        .values(in_stock=Product.in_stock + item["quantity"])
    )


def reorder() -> None:
    """Ask the supplier for what runs low: a message that arrives with the goods.

    Until then several orders may ask for the same delivery; only one is counted.
    """
    with db.session.begin():
        low = db.session.scalars(db.select(Product).where(Product.in_stock < LOW)).all()
    for product in low:
        restock = {
            "product_id": product.id,
            "number": product.deliveries,
            "quantity": BATCH,
        }
        say(
            "restock",
            RestockMessage().dump(restock),
            id=f"restock-{product.id}-{product.deliveries}",
            delay=current_app.config["SHOP_SUPPLIER_SECONDS"],
        )
