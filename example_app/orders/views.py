"""HTTP views of orders."""

from __future__ import annotations

import typing as t

from flask import redirect
from flask import render_template
from flask import request
from flask import url_for
from flask.typing import ResponseReturnValue
from marshmallow import ValidationError

from ..extensions import db
from ..pages import load_panels
from ..request_ids import publish_with_request_id
from .blueprint import bp
from .forms import load_order
from .models import Order
from .placing import place


@bp.post("/")
def create() -> ResponseReturnValue:
    """Place an order. The status is 202, since a consumer bills the order later."""
    order = place(load_order(request))
    if request.is_json:
        url = url_for(".show", order_id=order.id)
        return describe_order(order), 202, {"Location": url}
    return redirect(url_for("pages.shop"), 303)


@bp.get("/<int(max=9223372036854775807):order_id>")
def show(order_id: int) -> ResponseReturnValue:
    """Show an order and its progress."""
    return describe_order(db.get_or_404(Order, order_id))


@bp.post("/broken")
def create_broken() -> ResponseReturnValue:
    """Publish an invalid order, which becomes a dead letter."""
    publish_with_request_id(
        "order.placed", {"order_id": "seven", "note": "not an order"}
    )
    return redirect(url_for("dead_letters.index"), 303)


@bp.errorhandler(RecursionError)
def refuse_deep_json(error: RecursionError) -> ResponseReturnValue:
    """Refuse JSON that is nested too deeply for Python."""
    return {"errors": "nested too deeply"}, 400


@bp.errorhandler(ValidationError)
def show_errors(error: ValidationError) -> ResponseReturnValue:
    """Show the errors of an invalid order."""
    db.session.rollback()
    if request.is_json:
        return {"errors": error.messages}, 422
    return render_template("shop.html", **load_panels(), errors=error.messages), 422


def describe_order(order: Order) -> dict[str, t.Any]:
    """Return an order as JSON."""
    return {
        "id": order.id,
        "customer": order.customer,
        "total": order.total,
        "status": order.status,
        "events": [
            {"name": event.name, "detail": event.detail, "at": event.at}
            for event in order.events
        ],
    }
