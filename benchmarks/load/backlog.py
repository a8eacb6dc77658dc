"""Messages for the shop's consumers, so many that the queues never run empty."""

from __future__ import annotations

import json
import typing as t
from collections.abc import Iterator
from collections.abc import Mapping

from example_app import create_app
from example_app.audit.models import AuditEntry
from example_app.extensions import db
from example_app.mail.models import Mail
from example_app.messages import NewsMessage
from example_app.messages import OrderMessage
from example_app.orders.models import Order
from example_app.orders.models import OrderItem
from example_app.orders.models import Payment
from example_app.stock.models import Product
from example_app.stock.models import Reservation

#: Number of orders in the shop's database, to which the messages refer.
ORDER_COUNT = 20

#: The queues are refilled when one of them has fewer messages than this.
FEW_MESSAGES = 100


class Backlog:
    """The shop's queues, and the messages that are published to them.

    :param config: The shop's configuration.
    """

    def __init__(self, config: Mapping[str, t.Any]) -> None:
        app = create_app(config)
        self._consumers = app.extensions["qconsume"]
        #: The names of the shop's consumers.
        self.names = list(self._consumers.consumers)
        with app.app_context():
            orders = list(_place_orders())
        self._messages = [each for order in orders for each in _messages_about(order)]

    def fill(self, times: int) -> None:
        """Publish all messages, each one ``times`` times."""
        self._consumers.publish_many(self._messages * times)

    def depths(self) -> dict[str, int]:
        """Return the number of waiting messages of each consumer."""
        broker = self._consumers.broker
        found = self._consumers.consumers.items()
        return {name: broker.depth(consumer.queue) for name, consumer in found}

    def close(self) -> None:
        """Close the connections to the broker."""
        self._consumers.close()


def runs_low(depths: Mapping[str, int]) -> bool:
    """Return whether a consumer will soon have no messages."""
    # The consumer 'stock.receive' gets messages only when the stock is low.
    return (
        min(n for name, n in depths.items() if name != "stock.receive") < FEW_MESSAGES
    )


def _place_orders() -> Iterator[Order]:
    """Create orders with all records that handlers would write about them.

    The shop's page shows these records. Without them, the page of a shop without
    consumers would be shorter, and faster to render.
    """
    with db.session.begin():
        # The stock must not run out during a trial.
        db.session.execute(db.update(Product).values(in_stock=1_000_000_000))
        for number in range(ORDER_COUNT):
            order = _create_order(number)
            db.session.add(order)
            db.session.flush()
            db.session.add_all(_create_records(order))
            yield order


def _create_order(number: int) -> Order:
    order = Order(
        customer=f"Customer {number}",
        email="customer@example.org",
        card="tok_visa",
        total=540,
        status="billed",
        items=[OrderItem(product_id=3, name="Earl Grey", quantity=1, price=540)],
    )
    for name in ("placed", "billed", "stock.reserved", "mail.sent"):
        order.add_event(name, "all in stock")
    return order


def _create_records(order: Order) -> Iterator[t.Any]:
    body = json.dumps(OrderMessage().dump(order))
    yield Payment(order_id=order.id, receipt="R", amount=order.total)
    yield Reservation(order_id=order.id, detail="all in stock")
    yield Mail(
        order_id=order.id,
        to=order.email,
        subject=f"Thank you for order {order.id}",
        text=f"Dear {order.customer}, we have your payment, and the kettle is on.",
    )
    yield AuditEntry(
        message_id=f"order-{order.id}",
        routing_key="order.placed",
        request_id="load",
        body=body,
        published_at=0.0,
        received_at=0.1,
    )


def _messages_about(order: Order) -> Iterator[tuple[str, t.Any]]:
    """Yield messages about an order: at least one for each consumer."""
    body = OrderMessage().dump(order)
    news = NewsMessage().dump({"order_id": order.id, "detail": "all in stock"})
    yield from (("order.placed", body), ("order.billed", body))
    yield from (("stock.reserved", news), ("mail.sent", news))
