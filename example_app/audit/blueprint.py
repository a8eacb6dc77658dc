"""The blueprint that the views and the consumer of the audit are registered on."""

from __future__ import annotations

from flask_qconsume import ConsumerBlueprint

bp = ConsumerBlueprint("audit", __name__, url_prefix="/audit")
