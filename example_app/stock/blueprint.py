"""Blueprint of the views and consumers of the stock."""

from __future__ import annotations

from flask_qconsume import ConsumerBlueprint

bp = ConsumerBlueprint("stock", __name__, url_prefix="/stock")
