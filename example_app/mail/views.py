"""HTTP views of mails."""

from __future__ import annotations

from flask.typing import ResponseReturnValue

from ..extensions import db
from .blueprint import bp
from .models import Mail


@bp.get("/")
def index() -> ResponseReturnValue:
    """List the latest mails."""
    mails = db.session.scalars(db.select(Mail).order_by(Mail.id.desc()).limit(50))
    return [{"to": each.to, "subject": each.subject} for each in mails]
