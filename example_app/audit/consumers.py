"""Consumer of all messages, independent of the other parts of the shop."""

from __future__ import annotations

import json
import time
import typing as t

from flask import g

from flask_qconsume import current_message

from ..extensions import db
from .blueprint import bp
from .models import AuditEntry


@bp.consumer("audit", routing_key="#")
def record(body: t.Any) -> None:
    """Save a message once, with any body."""
    now = time.time()
    message_id = str(current_message.id)
    with db.session.begin():
        if not is_known(message_id):
            db.session.add(
                AuditEntry(
                    message_id=message_id,
                    routing_key=current_message.routing_key,
                    request_id=g.request_id,
                    body=json.dumps(body, default=str),
                    published_at=current_message.timestamp or now,
                    received_at=now,
                )
            )


def is_known(message_id: str) -> bool:
    """Return whether a copy of the message was saved before."""
    found = db.select(AuditEntry.id).filter_by(message_id=message_id)
    return db.session.scalar(found) is not None
