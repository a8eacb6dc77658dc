"""The shop's defaults. Each can be set from outside, as ``FLASK_<KEY>``."""

from __future__ import annotations

import pathlib
import typing as t


def defaults(folder: str) -> dict[str, t.Any]:
    """The configuration of a shop that keeps its database in ``folder``."""
    path = pathlib.Path(folder, "shop.sqlite")
    return {
        "SQLALCHEMY_DATABASE_URI": f"sqlite:///{path}",
        # No broker is needed to try the shop out. With
        # FLASK_QCONSUME_BROKER_URL=amqp://guest:guest@localhost// (or redis://…) the
        # very same shop runs on a real one.
        "QCONSUME_BROKER_URL": "memory://",
        "QCONSUME_EXCHANGE": "shop",
        "QCONSUME_QUEUE_PREFIX": "shop.",
        # Short, so that a person who watches the page sees retries happen.
        "QCONSUME_RETRY_POLICIES": {
            "gateway": {"max_attempts": 4, "min_delay": 1.0, "factor": 2.0},
        },
        # The gateway is a pretended one: how long an answer takes, how often there is
        # none at all, and a seed for those who want the same failures every time.
        "SHOP_GATEWAY_SECONDS": 0.3,
        "SHOP_GATEWAY_TIMEOUTS": 0.35,
        "SHOP_GATEWAY_SEED": None,
        # How long the supplier takes to bring what was ordered.
        "SHOP_SUPPLIER_SECONDS": 10.0,
    }
