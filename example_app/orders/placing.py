"""Placing an order, and telling the rest of the shop about it."""

from __future__ import annotations

import typing as t

from flask import current_app

from flask_qconsume import BrokerError

from ..extensions import db
from ..messages import OrderMessage
from ..stock.models import Product
from ..tracing import say
from .models import PLACED
from .models import Order
from .models import OrderItem


def place(form: dict[str, t.Any]) -> Order:
    """Save an order, then publish it.

    Only in that order: a consumer may run before this function goes on, and must find
    what it was told about. If the broker cannot be reached the order is still placed;
    :func:`resend` makes up for it.
    """
    with db.session.begin():
        order = _order(form)
        db.session.add(order)
    try:
        announce(order, PLACED)
    except BrokerError:
        current_app.logger.exception("The order %d is saved, not published", order.id)
    return order


def announce(order: Order, status: str, reason: str = "") -> None:
    """Publish ``order.<status>``.

    Its id is the same each time, so that whoever keeps ids knows a copy for a copy.
    """
    body = OrderMessage().dump(order) | ({"reason": reason} if reason else {})
    say(f"order.{status}", body, id=f"order-{order.id}-{status}")


def resend() -> None:
    """Publish again what nobody has billed or rejected yet.

    An order can be saved and its message lost: the process died between the two, the
    broker could not be reached, or the messages were only in memory. Sending one too
    many does no harm, since billing is guarded.
    """
    with db.session.begin():
        orders = db.session.scalars(db.select(Order).filter_by(status=PLACED)).all()
    for order in orders:
        announce(order, PLACED)


def _order(form: dict[str, t.Any]) -> Order:
    items = [_item(**line) for line in form["items"]]
    order = Order(
        customer=form["customer"],
        email=form["email"],
        card=form["card"],
        total=sum(item.price * item.quantity for item in items),
        items=items,
    )
    order.add_event(PLACED)
    return order


def _item(product_id: int, quantity: int) -> OrderItem:
    product = db.session.get_one(Product, product_id)
    return OrderItem(
        product_id=product.id,
        name=product.name,
        quantity=quantity,
        price=product.price,
    )
