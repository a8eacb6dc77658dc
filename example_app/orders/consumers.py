"""Billing, and following what the rest of the shop does about an order.

Messages come at least once. So everything here looks first whether it was done already,
and passes the news on in either case: the process may have died in between.
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
from .models import BILLED
from .models import REJECTED
from .models import Order
from .models import Payment
from .placing import announce
from .placing import resend


@bp.before_worker
def catch_up() -> None:
    """See to what was left behind; the worker starts even if that fails."""
    try:
        resend()
    except BrokerError:
        current_app.logger.exception("Open orders are left to the next start")


@bp.consumer(
    "billing",
    routing_key="order.placed",
    schema=OrderMessage,
    retry="gateway",
    concurrency=10,
    timeout=30,
)
def bill(message: dict[str, t.Any]) -> None:
    """Charge for an order. A gateway that does not answer is asked again later."""
    with db.session.begin():
        order = found(message["id"])
        paid = db.session.get(Payment, order.id)
    if paid is None:
        g.unpaid = order
        gateway = current_app.extensions["payments"]
        receipt = gateway.charge(order.card, order.total, key=f"order-{order.id}")
        enter(order, receipt)
        g.pop("unpaid")
    announce(order, BILLED)


@bp.message_errorhandler(CardDeclined)
def declined(error: CardDeclined) -> Reject:
    """The bank would say the same again: no retry, a dead letter at once."""
    return Reject(str(error))


@bp.after_message
def tell_customer(outcome: Outcome) -> None:
    """Let the order know when its billing failed, for now or for good."""
    order = g.get("unpaid")
    if order is None:
        return
    if isinstance(outcome, Retry):
        number, delay = current_message.attempt, outcome.delay
        note(order, "retried", f"attempt {number} failed, again in {delay:.1f} s")
    elif isinstance(outcome, Reject):
        note(order, REJECTED, outcome.reason)
        announce(order, REJECTED, outcome.reason)


@bp.consumer(
    "timeline", routing_key=["stock.reserved", "mail.sent"], schema=NewsMessage
)
def follow(news: dict[str, t.Any]) -> None:
    """Add what the others did to the order's own story."""
    with db.session.begin():
        order = found(news["order_id"])
        name = current_message.routing_key
        if not order.has_event(name):
            order.add_event(name, news["detail"])


@bp.consumer(
    "refunds", routing_key="stock.missing", schema=NewsMessage, retry="gateway"
)
def refund(news: dict[str, t.Any]) -> None:
    """Give the money back for an order that cannot be delivered."""
    with db.session.begin():
        order = found(news["order_id"])
        payment = db.session.get_one(Payment, order.id)
    if order.status != REJECTED:
        current_app.extensions["payments"].refund(payment.receipt)
        note(order, REJECTED, f"{news['detail']}; refunded")
    announce(order, REJECTED, f"{news['detail']}; refunded")


def enter(order: Order, receipt: str) -> None:
    """Save a payment. Of two at once one fails here, and is retried."""
    with db.session.begin():
        db.session.add(Payment(order_id=order.id, receipt=receipt, amount=order.total))
        order.status = BILLED
        order.add_event(BILLED, receipt)


def note(order: Order, name: str, detail: str) -> None:
    """Save what went wrong with an order, for now or for good."""
    # What failed may have left a transaction behind.
    db.session.rollback()
    with db.session.begin():
        if name == REJECTED:
            order.status = REJECTED
        order.add_event(name, detail)


def found(order_id: int) -> Order:
    """The order; a message about one that is gone has nothing left to do."""
    order = db.session.get(Order, order_id)
    if order is None:
        raise Drop(f"there is no order {order_id} any more")
    return order
