"""Page on which orders are placed and watched."""

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

#: Panels of the page that are kept up to date, by the name of their template.
PANELS = ("orders", "stock", "mails", "audit")


@bp.get("/")
def shop() -> ResponseReturnValue:
    """Show the page."""
    return render_template("shop.html", **load_panels(), errors=None)


@bp.get("/live")
def live() -> ResponseReturnValue:
    """Render the current panels of the page, for ``static/live.js``."""
    found = load_panels()
    return {name: render_template(f"_{name}.html", **found) for name in PANELS}


@bp.app_errorhandler(BrokerError)
def show_unavailable(error: BrokerError) -> ResponseReturnValue:
    """Show that the broker cannot be reached."""
    return render_template("unavailable.html", error=error), 503


def load_panels() -> dict[str, t.Any]:
    """Load the data of the page's panels."""
    return {
        "cards": CARDS,
        "counts": Counter(db.session.scalars(db.select(Order.status))),
        "orders": list_latest(Order, 8),
        "mails": list_latest(Mail, 6),
        "audit": list_latest(AuditEntry, 14),
        "stock": db.session.scalars(db.select(Product).order_by(Product.id)).all(),
    }


def list_latest(model: t.Any, number: int) -> t.Sequence[t.Any]:
    """List the last rows of a table, the latest first."""
    query = db.select(model).order_by(model.id.desc()).limit(number)
    return db.session.scalars(query).all()


@bp.app_template_filter()
def money(cents: int) -> str:
    """Format an amount of money."""
    return f"€ {cents / 100:.2f}"


@bp.app_template_filter()
def clock(seconds: float) -> str:
    """Format a time of day."""
    return datetime.datetime.fromtimestamp(seconds).strftime("%H:%M:%S")
