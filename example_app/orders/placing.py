"""Placing and publishing of orders."""

from __future__ import annotations

import typing as t

from flask import current_app

from flask_qconsume import BrokerError

from ..extensions import db
from ..messages import OrderMessage
from ..request_ids import publish_with_request_id
from ..stock.models import Product
from .models import PLACED
from .models import Order
from .models import OrderItem
from .models import UnpublishedOrder


def place(form: dict[str, t.Any]) -> Order:
    """Save an order, then publish it.

    The order is saved first, since a consumer may run before this function returns, and
    must find the order. If the broker cannot be reached, the order is saved all the
    same, and :func:`resend` publishes it later.
    """
    with db.session.begin():
        order = _create_order(form)
        db.session.add(order)
        db.session.flush()
        db.session.add(UnpublishedOrder(order_id=order.id))
    try:
        _publish(order)
    except BrokerError:
        current_app.logger.exception("Order %d is saved, but not published", order.id)
    return order


def announce(order: Order, status: str, reason: str = "") -> None:
    """Publish ``order.<status>``.

    The message id is always the same, so that consumers can recognise a copy.
    """
    body = OrderMessage().dump(order) | ({"reason": reason} if reason else {})
    publish_with_request_id(f"order.{status}", body, id=f"order-{order.id}-{status}")


def resend() -> None:
    """Publish orders whose message the broker may not have.

    The message of a saved order is missing if the process died before it was published,
    or if the broker could not be reached. A second message does no harm, since an order
    is billed once.
    """
    with db.session.begin():
        unpublished = db.select(Order).join(UnpublishedOrder)
        orders = db.session.scalars(unpublished).all()
    for order in orders:
        _publish(order)


def _publish(order: Order) -> None:
    """Publish ``order.placed``, and note that the broker has it."""
    announce(order, PLACED)
    with db.session.begin():
        db.session.execute(db.delete(UnpublishedOrder).filter_by(order_id=order.id))


def _create_order(form: dict[str, t.Any]) -> Order:
    items = [_create_item(**line) for line in form["items"]]
    order = Order(
        customer=form["customer"],
        email=form["email"],
        card=form["card"],
        total=sum(item.price * item.quantity for item in items),
        items=items,
    )
    order.add_event(PLACED)
    return order


def _create_item(product_id: int, quantity: int) -> OrderItem:
    product = db.session.get_one(Product, product_id)
    return OrderItem(
        product_id=product.id,
        name=product.name,
        quantity=quantity,
        price=product.price,
    )
