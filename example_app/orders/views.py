"""Orders over HTTP."""

from __future__ import annotations

import typing as t

from flask import redirect
from flask import render_template
from flask import request
from flask import url_for
from flask.typing import ResponseReturnValue
from marshmallow import ValidationError

from ..extensions import db
from ..pages import panels
from ..tracing import say
from .blueprint import bp
from .forms import loaded
from .models import Order
from .placing import place


@bp.post("/")
def create() -> ResponseReturnValue:
    """Place an order. It is billed later, by a consumer: hence 202, not 201."""
    order = place(loaded(request))
    if request.is_json:
        url = url_for(".show", order_id=order.id)
        return described(order), 202, {"Location": url}
    return redirect(url_for("pages.shop"), 303)


@bp.get("/<int(max=9223372036854775807):order_id>")
def show(order_id: int) -> ResponseReturnValue:
    """What became of an order."""
    return described(db.get_or_404(Order, order_id))


@bp.post("/broken")
def create_broken() -> ResponseReturnValue:
    """Publish something that is no order, to see what becomes of it."""
    say("order.placed", {"order_id": "seven", "note": "written by somebody else"})
    return redirect(url_for("dead_letters.index"), 303)


@bp.errorhandler(RecursionError)
def too_deep(error: RecursionError) -> ResponseReturnValue:
    """Refuse JSON that is nested deeper than Python reads it."""
    return {"errors": "nested too deeply"}, 400


@bp.errorhandler(ValidationError)
def refused(error: ValidationError) -> ResponseReturnValue:
    """What was sent is no order."""
    db.session.rollback()
    if request.is_json:
        return {"errors": error.messages}, 422
    return render_template("shop.html", **panels(), errors=error.messages), 422


def described(order: Order) -> dict[str, t.Any]:
    """An order as JSON."""
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
