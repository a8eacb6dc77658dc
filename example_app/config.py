"""Default configuration. Environment variables ``FLASK_<KEY>`` override it."""

from __future__ import annotations

import pathlib
import typing as t


def get_defaults(folder: str) -> dict[str, t.Any]:
    """Return the configuration of a shop with its database in ``folder``."""
    path = pathlib.Path(folder, "shop.sqlite")
    return {
        "SQLALCHEMY_DATABASE_URI": f"sqlite:///{path}",
        # A process handles up to 62 messages at once, and answers requests. With the
        # pool of 5, these are connections enough.
        "SQLALCHEMY_ENGINE_OPTIONS": {"max_overflow": 60},
        # The queues are in a file beside the database. To use RabbitMQ or Redis, set
        # FLASK_QCONSUME_BROKER_URL=amqp://guest:guest@localhost// (or redis://…).
        "QCONSUME_BROKER_URL": "sqlite:///qconsume.db",
        "QCONSUME_EXCHANGE": "shop",
        "QCONSUME_QUEUE_PREFIX": "shop.",
        # The delays are short, so that retries can be watched on the page.
        "QCONSUME_RETRY_POLICIES": {
            "gateway": {"max_attempts": 4, "min_delay": 1.0, "factor": 2.0},
        },
        # The payment gateway is simulated. Seconds until it answers, the share of
        # requests that it does not answer, and a seed to repeat the same failures:
        "SHOP_GATEWAY_SECONDS": 0.3,
        "SHOP_GATEWAY_TIMEOUTS": 0.35,
        "SHOP_GATEWAY_SEED": None,
        # Prometheus sends this token to read /metrics; without a token there is none.
        "SHOP_METRICS_TOKEN": "",
        # Seconds until the supplier delivers.
        "SHOP_SUPPLIER_SECONDS": 10.0,
    }
