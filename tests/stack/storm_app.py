"""An app for :mod:`.test_queries` with a consumer that fails, and one that blocks."""

from __future__ import annotations

import time

from flask import Flask

from flask_qconsume import QConsume
from flask_qconsume import RetryPolicy

qconsume = QConsume()


class PaymentsAway(Exception):
    """The service that the handler calls does not answer."""


@qconsume.consumer(
    "charges", concurrency=50, retry=RetryPolicy(max_attempts=3, min_delay=0.5)
)
def charge(order: object) -> None:
    raise PaymentsAway("the payment service does not answer")


@qconsume.consumer("computations")
def compute(seconds: float) -> None:
    """Compute, so that no other greenlet runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.from_prefixed_env()
    qconsume.init_app(app)
    return app
