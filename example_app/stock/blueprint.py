"""The blueprint that the views and the consumers of the stock are registered on."""

from __future__ import annotations

from flask_qconsume import ConsumerBlueprint

bp = ConsumerBlueprint("stock", __name__, url_prefix="/stock")
