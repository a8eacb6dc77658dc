"""Blueprint of the views and consumers of orders."""

from __future__ import annotations

from flask_qconsume import ConsumerBlueprint

bp = ConsumerBlueprint("orders", __name__, url_prefix="/orders")
