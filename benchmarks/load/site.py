"""The example shop, with a page that shows how many messages were handled."""

from __future__ import annotations

import typing as t

from flask import Flask

import example_app
from flask_qconsume import signals


def create_app() -> Flask:
    app = example_app.create_app()
    handled = 0

    def count(sender: t.Any, **arguments: t.Any) -> None:
        nonlocal handled
        handled += 1

    signals.message_handled.connect(count, app, weak=False)

    @app.get("/handled")
    def show() -> dict[str, int]:
        return {"handled": handled}

    return app
