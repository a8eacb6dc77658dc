"""Schemas of the messages between the parts of the shop.

Publisher and consumer use the same schema, and know nothing else of each other. Schemas
ignore unknown fields, so that the messages of a newer publisher do not become dead
letters of an older consumer.
"""

from __future__ import annotations

from marshmallow import EXCLUDE
from marshmallow import Schema
from marshmallow import fields
from marshmallow.validate import Length
from marshmallow.validate import Range


class MessageSchema(Schema):
    """Base class of all schemas."""

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
    #: A token of the payment gateway. Never put card numbers into messages.
    card = fields.Str(required=True)
    #: Cents.
    total = fields.Int(required=True, validate=Range(min=1))
    items = fields.List(
        fields.Nested(ItemMessage), required=True, validate=Length(min=1)
    )
    #: Reason of the rejection, in ``order.rejected``.
    reason = fields.Str(load_default="")


class NewsMessage(MessageSchema):
    """``stock.reserved``, ``stock.missing``, ``mail.sent``: news about an order."""

    order_id = fields.Int(required=True)
    detail = fields.Str(required=True)


class RestockMessage(MessageSchema):
    """``restock``: a delivery by the supplier."""

    product_id = fields.Int(required=True)
    #: Number of the delivery of this product, so that it is counted once.
    number = fields.Int(required=True)
    quantity = fields.Int(required=True, validate=Range(min=1))
