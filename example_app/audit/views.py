"""HTTP views of the audit."""

from __future__ import annotations

from flask.typing import ResponseReturnValue

from ..extensions import db
from .blueprint import bp
from .models import AuditEntry


@bp.get("/")
def index() -> ResponseReturnValue:
    """List the latest entries."""
    entries = db.session.scalars(
        db.select(AuditEntry).order_by(AuditEntry.id.desc()).limit(100)
    )
    return [
        {
            "message_id": entry.message_id,
            "routing_key": entry.routing_key,
            "request_id": entry.request_id,
            "latency_ms": entry.latency,
        }
        for entry in entries
    ]
