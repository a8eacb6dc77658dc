"""An app whose consumers get single messages."""

from __future__ import annotations

import typing as t
from collections.abc import Callable

import pytest
from flask import Flask

from flask_qconsume import Message
from flask_qconsume import QConsume
from flask_qconsume.handling.dispatch import Result
from flask_qconsume.handling.dispatch import dispatch
from tests.apps import make_app


class Desk:
    """Register on ``qconsume`` and ``blueprints``, then ``handle()``."""

    def __init__(self) -> None:
        self.qconsume = QConsume()
        self.blueprints: list[t.Any] = []
        self.config: dict[str, t.Any] = {"retry": {"jitter": 0, "max_attempts": 3}}
        self._app: Flask | None = None

    @property
    def app(self) -> Flask:
        if self._app is None:
            self._app = make_app(self.qconsume, *self.blueprints, **self.config)
        return self._app

    def handler(self, function: Callable[..., t.Any], **options: t.Any) -> None:
        """Make this the app's one handler, the consumer 'bill'."""
        self.qconsume.add_consumer("billing", function, name="bill", **options)

    def handle(
        self,
        raw: bytes = b"{}",
        *,
        name: str = "bill",
        limit: t.Any = None,
        now: Callable[[], float] | None = None,
        **fields: t.Any,
    ) -> Result:
        consumer = self.app.extensions["qconsume"].consumers[name]
        message = Message(raw, consumer.queue, **{"id": "m1", **fields})
        options = {"limit": limit, "now": now}
        given = {name: value for name, value in options.items() if value}
        given["events"] = self.app.extensions["qconsume"].events
        return dispatch(self.app, consumer, message, **given)


@pytest.fixture
def desk() -> Desk:
    return Desk()
