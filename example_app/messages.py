"""What the parts of the shop say to each other: the shapes of its messages.

A part loads a message by the schema by which another one dumped it, and knows nothing
else of that other part. Unknown fields are left out instead of refused, so that a newer
publisher does not fill the dead letters of an older consumer.
"""

from __future__ import annotations

from marshmallow import EXCLUDE
from marshmallow import Schema
from marshmallow import fields
from marshmallow.validate import Length
from marshmallow.validate import Range


class MessageSchema(Schema):
    """What all messages have in common."""

    class Meta:
        unknown = EXCLUDE


class ItemMessage(MessageSchema):
    """One line of an order."""

    product_id = fields.Int(required=True)
    name = fields.Str(required=True)
    quantity = fields.Int(required=True, validate=Range(min=1))


class OrderMessage(MessageSchema):
    """``order.placed``, ``order.billed``, ``order.rejected``."""

    order_id = fields.Int(required=True, attribute="id")
    customer = fields.Str(required=True)
    email = fields.Email(required=True)
    #: A token of the payment gateway's; a card's number has no place in a message.
    card = fields.Str(required=True)
    #: Cents.
    total = fields.Int(required=True, validate=Range(min=1))
    items = fields.List(
        fields.Nested(ItemMessage), required=True, validate=Length(min=1)
    )
    #: Why it was rejected, where it was.
    reason = fields.Str(load_default="")


class NewsMessage(MessageSchema):
    """``stock.reserved``, ``stock.missing``, ``mail.sent``: news about an order."""

    order_id = fields.Int(required=True)
    detail = fields.Str(required=True)


class RestockMessage(MessageSchema):
    """``restock``: the supplier brings something."""

    product_id = fields.Int(required=True)
    #: Which delivery of this product it is, so that none is counted twice.
    number = fields.Int(required=True)
    quantity = fields.Int(required=True, validate=Range(min=1))
