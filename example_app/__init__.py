"""A small tea shop: HTTP requests place orders, and consumers process them.

Consumers that run when an order is placed (every arrow is a message)::

    POST /orders ── order.placed ──▶ orders.bill ── order.billed ──┬▶ stock.reserve
                                        │                          └▶ mail.tell
                                        └── order.rejected ─────────▶ mail.tell
    stock.reserve ─┬ stock.reserved ──▶ orders.follow
                   ├ stock.missing ───▶ orders.refund ── order.rejected ─▶ mail.tell
                   └ restock (later) ─▶ stock.receive
    mail.tell ────── mail.sent ───────▶ orders.follow
    everything ───────────────────────▶ audit.record
"""

from __future__ import annotations

import typing as t

from flask import Flask

from . import audit
from . import config
from . import database
from . import dead_letters
from . import mail
from . import metrics
from . import orders
from . import pages
from . import request_ids
from . import stock
from . import telemetry
from .extensions import db
from .extensions import qconsume
from .orders.gateway import PaymentGateway


def create_app(overrides: t.Mapping[str, t.Any] | None = None) -> Flask:
    """Create the app of the shop.

    The configuration is :mod:`.config`, then environment variables ``FLASK_…``, then
    ``overrides``; later values replace earlier ones.
    """
    app = Flask(__name__)
    app.config.from_mapping(config.get_defaults(app.instance_path))
    app.config.from_prefixed_env()
    app.config.from_mapping(overrides or {})

    db.init_app(app)
    qconsume.init_app(app)
    app.extensions["payments"] = PaymentGateway.from_config(app.config)

    for part in (pages, orders, stock, mail, audit, dead_letters, metrics):
        app.register_blueprint(part.bp)
    request_ids.init_app(app)
    telemetry.init_app(app)
    database.init_app(app)
    return app
