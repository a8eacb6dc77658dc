"""Schemas of ``POST /orders``, for JSON and for the form of the page."""

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


def _check_product(product_id: int) -> None:
    # Compared in Python, since the number may be too large for the database.
    if product_id not in db.session.scalars(db.select(Product.id)).all():
        raise ValidationError(f"There is no product {product_id}.")


def _check_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON may contain a lone surrogate.
        raise ValidationError("Not a valid text.") from None


def _get_product(product_id: int) -> Product:
    return db.session.get_one(Product, product_id)


class ItemForm(Schema):
    """One line of an order."""

    product_id = fields.Int(required=True, validate=_check_product)
    quantity = fields.Int(required=True, validate=Range(min=1, max=99))


class OrderForm(Schema):
    """An order without prices, as a customer sends it."""

    customer = fields.Str(required=True, validate=[Length(min=1, max=80), _check_text])
    email = fields.Email(required=True)
    card = fields.Str(load_default="tok_visa", validate=OneOf(list(CARDS)))
    items = fields.List(
        fields.Nested(ItemForm),
        required=True,
        validate=Length(min=1, error="Choose at least one product."),
    )

    @validates_schema
    def check_stock(self, order: dict[str, t.Any], **options: t.Any) -> None:
        """Refuse more than is in stock. Consumers check the stock again later."""
        wanted: Counter[int] = Counter()
        for line in order["items"]:
            wanted[line["product_id"]] += line["quantity"]
        for product in map(_get_product, wanted):
            if product.in_stock < wanted[product.id]:
                left = f"{product.in_stock} of {product.name}"
                raise ValidationError(f"There are only {left}.", "items")


def load_order(request: Request) -> dict[str, t.Any]:
    """Load the order of a request.

    :raises ValidationError: if the order is invalid.
    """
    data = request.get_json() if request.is_json else _read_form(request)
    found: dict[str, t.Any] = OrderForm().load(data)
    # End the transaction that the look-up of products has begun.
    db.session.rollback()
    return found


def _read_form(request: Request) -> dict[str, t.Any]:
    """Read the form; the field ``quantity-3`` has the quantity of product 3."""
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
