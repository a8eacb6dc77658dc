"""Request ids, which messages carry from the HTTP request to every consumer."""

from __future__ import annotations

import typing as t
import uuid

from flask import Flask
from flask import g

from flask_qconsume import current_message

from .extensions import qconsume

HEADER = "x-request-id"


def init_app(app: Flask) -> None:
    """Give each request of the app an id."""
    app.before_request(begin_request)


def begin_request() -> None:
    """Create the id of a request."""
    g.request_id = uuid.uuid4().hex[:8]


@qconsume.before_message
def resume_request() -> None:
    """Take the request id from the message."""
    g.request_id = str(current_message.headers.get(HEADER, ""))


def publish_with_request_id(routing_key: str, body: t.Any, **options: t.Any) -> None:
    """Publish a message with the current request id."""
    headers = {HEADER: g.get("request_id", "")}
    qconsume.publish(routing_key, body, headers=headers, **options)
