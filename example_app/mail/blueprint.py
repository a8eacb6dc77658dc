"""The blueprint that the views and the consumers of mail are registered on."""

from __future__ import annotations

from flask_qconsume import ConsumerBlueprint

bp = ConsumerBlueprint("mail", __name__, url_prefix="/mail")
