"""HTTP views of the stock."""

from __future__ import annotations

from flask.typing import ResponseReturnValue

from ..extensions import db
from .blueprint import bp
from .models import Product


@bp.get("/")
def index() -> ResponseReturnValue:
    """List the products."""
    products = db.session.scalars(db.select(Product).order_by(Product.id))
    return [
        {"id": each.id, "name": each.name, "in_stock": each.in_stock}
        for each in products
    ]
