"""Consumers that bill orders and record their progress.

A message may be delivered more than once. So each consumer first checks whether its
work is done, and then publishes the result in any case: the process may have died
between the two.
"""

from __future__ import annotations

import typing as t

from flask import current_app
from flask import g

from flask_qconsume import BrokerError
from flask_qconsume import Drop
from flask_qconsume import Outcome
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume import current_message

from ..extensions import db
from ..messages import NewsMessage
from ..messages import OrderMessage
from .blueprint import bp
from .gateway import CardDeclined
from .gateway import Receipt
from .models import BILLED
from .models import REJECTED
from .models import Order
from .models import Payment
from .placing import announce
from .placing import resend


@bp.before_worker
def catch_up() -> None:
    """Publish orders that are not published; if it fails, the worker starts anyway."""
    try:
        resend()
    except BrokerError:
        current_app.logger.exception(
            "Cannot publish saved orders, the next start tries again"
        )


@bp.consumer(
    "billing",
    routing_key="order.placed",
    schema=OrderMessage,
    retry="gateway",
    concurrency=10,
    timeout=30,
)
def bill(message: dict[str, t.Any]) -> None:
    """Charge for an order. If the gateway does not answer, the message is retried."""
    with db.session.begin():
        order = get_order(message["id"])
        paid = db.session.get(Payment, order.id)
    if paid is None:
        g.unpaid = order
        gateway = current_app.extensions["payments"]
        receipt = gateway.charge(order.card, order.total, key=f"order-{order.id}")
        save_payment(order, receipt)
        g.pop("unpaid")
    announce(order, BILLED)


@bp.message_errorhandler(CardDeclined)
def reject_declined_card(error: CardDeclined) -> Reject:
    """Reject the message at once, since a retry would be declined, too."""
    return Reject(str(error))


@bp.after_message
def record_failure(outcome: Outcome) -> None:
    """Record a failed attempt to bill an order; publish its final rejection."""
    order = g.get("unpaid")
    if order is None:
        return
    if isinstance(outcome, Retry):
        number, delay = current_message.attempt, outcome.delay
        save_failure(
            order, "retried", f"attempt {number} failed, again in {delay:.1f} s"
        )
    elif isinstance(outcome, Reject):
        save_failure(order, REJECTED, outcome.reason)
        announce(order, REJECTED, outcome.reason)


@bp.consumer(
    "timeline", routing_key=["stock.reserved", "mail.sent"], schema=NewsMessage
)
def follow(news: dict[str, t.Any]) -> None:
    """Add the progress in other parts of the shop to an order's events."""
    with db.session.begin():
        order = get_order(news["order_id"])
        name = current_message.routing_key
        if not order.has_event(name):
            order.add_event(name, news["detail"])


@bp.consumer(
    "refunds", routing_key="stock.missing", schema=NewsMessage, retry="gateway"
)
def refund(news: dict[str, t.Any]) -> None:
    """Refund an order that cannot be delivered."""
    with db.session.begin():
        order = get_order(news["order_id"])
        payment = db.session.get_one(Payment, order.id)
    if order.status != REJECTED:
        current_app.extensions["payments"].refund(payment.receipt)
        save_failure(order, REJECTED, f"{news['detail']}; refunded")
    announce(order, REJECTED, f"{news['detail']}; refunded")


def save_payment(order: Order, receipt: Receipt) -> None:
    """Save a payment. A second payment of the order fails, and is retried."""
    number = receipt.number
    with db.session.begin():
        db.session.add(Payment(order_id=order.id, receipt=number, amount=order.total))
        order.status = BILLED
        earlier = ", charged at an earlier attempt" if receipt.repeated else ""
        order.add_event(BILLED, f"{number}{earlier}")


def save_failure(order: Order, name: str, detail: str) -> None:
    """Save a failure as an event of an order."""
    # The failed handler may have left a transaction open.
    db.session.rollback()
    with db.session.begin():
        if name == REJECTED:
            order.status = REJECTED
        order.add_event(name, detail)


def get_order(order_id: int) -> Order:
    """Load an order; drop the message if the order does not exist."""
    order = db.session.get(Order, order_id)
    if order is None:
        raise Drop(f"order {order_id} does not exist")
    return order
