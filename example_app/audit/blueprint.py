"""Blueprint of the audit's views and consumer."""

from __future__ import annotations

from flask_qconsume import ConsumerBlueprint

bp = ConsumerBlueprint("audit", __name__, url_prefix="/audit")
