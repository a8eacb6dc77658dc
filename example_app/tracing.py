"""Which request led to what: an id that goes from the request through every message."""

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
    app.before_request(begin)


def begin() -> None:
    """A request begins."""
    g.request_id = uuid.uuid4().hex[:8]


@qconsume.before_message
def resume() -> None:
    """A message goes on with the id of the request that it came from."""
    g.request_id = str(current_message.headers.get(HEADER, ""))


def say(routing_key: str, body: t.Any, **options: t.Any) -> None:
    """Publish a message that carries the current request's id on."""
    headers = {HEADER: g.get("request_id", "")}
    qconsume.publish(routing_key, body, headers=headers, **options)
