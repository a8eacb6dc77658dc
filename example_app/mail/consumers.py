"""Consumer that sends mails about orders: one queue with two events."""

from __future__ import annotations

import typing as t

from flask_qconsume import current_message

from ..extensions import db
from ..messages import NewsMessage
from ..messages import OrderMessage
from ..request_ids import publish_with_request_id
from .blueprint import bp
from .models import Mail

TEXTS = {
    "order.billed": (
        "Thank you for order {id}",
        "Dear {customer}, we have your payment, and the kettle is on.",
    ),
    "order.rejected": (
        "About order {id}",
        "Dear {customer}, we cannot deliver your order ({reason}).",
    ),
}


@bp.consumer(
    "mail",
    routing_key=list(TEXTS),
    schema=OrderMessage,
    retry={"max_attempts": 10, "min_delay": 5},
    concurrency=2,
)
def tell(order: dict[str, t.Any]) -> None:
    """Send the mail of an event to the customer, once."""
    subject, text = TEXTS[current_message.routing_key]
    mail = Mail(
        order_id=order["id"],
        to=order["email"],
        subject=subject.format(**order),
        text=text.format(**order),
    )
    with db.session.begin():
        if not is_sent(mail):
            db.session.add(mail)
    news = {"order_id": mail.order_id, "detail": mail.subject}
    publish_with_request_id(
        "mail.sent", NewsMessage().dump(news), id=f"mail-{current_message.id}"
    )


def is_sent(mail: Mail) -> bool:
    """Return whether the mail was sent before."""
    same = db.select(Mail.id).filter_by(order_id=mail.order_id, subject=mail.subject)
    return db.session.scalar(same) is not None
