"""Blueprint of the views and consumers of mail."""

from __future__ import annotations

from flask_qconsume import ConsumerBlueprint

bp = ConsumerBlueprint("mail", __name__, url_prefix="/mail")
