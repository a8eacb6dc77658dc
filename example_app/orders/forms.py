"""What may be sent to ``POST /orders``, as JSON or from the page's form."""

from __future__ import annotations

import typing as t
from collections import Counter

from flask import Request
from marshmallow import Schema
from marshmallow import ValidationError
from marshmallow import fields
from marshmallow import validates_schema
from marshmallow.validate import Length
from marshmallow.validate import OneOf
from marshmallow.validate import Range

from ..extensions import db
from ..stock.models import Product
from .gateway import CARDS


def _sold_here(product_id: int) -> None:
    # The number may be larger than any that the database can be asked for.
    if product_id not in db.session.scalars(db.select(Product.id)).all():
        raise ValidationError(f"There is no product {product_id}.")


def _is_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON may hold halves of characters.
        raise ValidationError("Not a valid text.") from None


def _product(product_id: int) -> Product:
    return db.session.get_one(Product, product_id)


class ItemForm(Schema):
    """One line of an order."""

    product_id = fields.Int(required=True, validate=_sold_here)
    quantity = fields.Int(required=True, validate=Range(min=1, max=99))


class OrderForm(Schema):
    """An order as a customer sends it; the prices are ours."""

    customer = fields.Str(required=True, validate=[Length(min=1, max=80), _is_text])
    email = fields.Email(required=True)
    card = fields.Str(load_default="tok_visa", validate=OneOf(list(CARDS)))
    items = fields.List(
        fields.Nested(ItemForm),
        required=True,
        validate=Length(min=1, error="Choose something first."),
    )

    @validates_schema
    def in_stock(self, order: dict[str, t.Any], **options: t.Any) -> None:
        """Refuse more than there is; what the other orders leave is seen later."""
        wanted: Counter[int] = Counter()
        for line in order["items"]:
            wanted[line["product_id"]] += line["quantity"]
        for product in map(_product, wanted):
            if product.in_stock < wanted[product.id]:
                left = f"{product.in_stock} of {product.name}"
                raise ValidationError(f"There are only {left}.", "items")


def loaded(request: Request) -> dict[str, t.Any]:
    """The order in a request.

    :raises ValidationError: if it is none.
    """
    data = request.get_json() if request.is_json else _of_page(request)
    found: dict[str, t.Any] = OrderForm().load(data)
    # Looking up products began a transaction; the order gets one of its own.
    db.session.rollback()
    return found


def _of_page(request: Request) -> dict[str, t.Any]:
    """The fields of the page: the quantity of product 3 is called ``quantity-3``."""
    lines = {
        name.removeprefix("quantity-"): quantity
        for name, quantity in request.form.items()
        if name.startswith("quantity-") and quantity not in ("", "0")
    }
    return {
        "customer": request.form.get("customer", ""),
        "email": request.form.get("email", ""),
        "card": request.form.get("card", ""),
        "items": [{"product_id": p, "quantity": q} for p, q in lines.items()],
    }
