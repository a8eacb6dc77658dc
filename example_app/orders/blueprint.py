"""The blueprint that the views and the consumers of orders are registered on."""

from __future__ import annotations

from flask_qconsume import ConsumerBlueprint

bp = ConsumerBlueprint("orders", __name__, url_prefix="/orders")
