"""View for Prometheus, which reads the counts of the site itself.

Workers have a port of their own for it, by ``flask qconsume run --health``.
"""

from __future__ import annotations

import hmac

from flask import Blueprint
from flask import abort
from flask import current_app
from flask import request
from flask.typing import ResponseReturnValue

from flask_qconsume.integrations.metrics import metrics

bp = Blueprint("metrics", __name__)


@bp.get("/metrics")
def show() -> ResponseReturnValue:
    """Show the metrics to clients that know the token."""
    token = current_app.config["SHOP_METRICS_TOKEN"]
    sent = request.headers.get("Authorization", "")
    if not token or not hmac.compare_digest(sent.encode(), f"Bearer {token}".encode()):
        abort(404)
    return metrics()
