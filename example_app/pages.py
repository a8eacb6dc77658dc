"""The page on which orders are placed and watched."""

from __future__ import annotations

import datetime
import typing as t
from collections import Counter

from flask import Blueprint
from flask import render_template
from flask.typing import ResponseReturnValue

from flask_qconsume import BrokerError

from .audit.models import AuditEntry
from .extensions import db
from .mail.models import Mail
from .orders.gateway import CARDS
from .orders.models import Order
from .stock.models import Product

bp = Blueprint("pages", __name__)

#: The parts of the page that are kept up to date, and their templates.
PANELS = ("orders", "stock", "mails", "audit")


@bp.get("/")
def shop() -> ResponseReturnValue:
    """The page."""
    return render_template("shop.html", **panels(), errors=None)


@bp.get("/live")
def live() -> ResponseReturnValue:
    """The panels of the page as they are now; ``static/live.js`` asks for them."""
    found = panels()
    return {name: render_template(f"_{name}.html", **found) for name in PANELS}


@bp.app_errorhandler(BrokerError)
def unavailable(error: BrokerError) -> ResponseReturnValue:
    """What a page wanted of the broker cannot be had now."""
    return render_template("unavailable.html", error=error), 503


def panels() -> dict[str, t.Any]:
    """What the templates of the page show."""
    return {
        "cards": CARDS,
        "counts": Counter(db.session.scalars(db.select(Order.status))),
        "orders": latest(Order, 8),
        "mails": latest(Mail, 6),
        "audit": latest(AuditEntry, 14),
        "stock": db.session.scalars(db.select(Product).order_by(Product.id)).all(),
    }


def latest(model: t.Any, number: int) -> t.Sequence[t.Any]:
    """The last rows of a table, the latest first."""
    query = db.select(model).order_by(model.id.desc()).limit(number)
    return db.session.scalars(query).all()


@bp.app_template_filter()
def money(cents: int) -> str:
    """An amount as a customer reads it."""
    return f"€ {cents / 100:.2f}"


@bp.app_template_filter()
def clock(seconds: float) -> str:
    """A time of day."""
    return datetime.datetime.fromtimestamp(seconds).strftime("%H:%M:%S")
