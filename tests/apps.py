"""Apps for tests, each on a memory broker of its own."""

from __future__ import annotations

import typing as t

from flask import Blueprint
from flask import Flask

from flask_qconsume import QConsume


def make_app(
    qconsume: QConsume | None = None, *blueprints: Blueprint, **config: t.Any
) -> Flask:
    """Make an app with the extension; keys of ``config`` lack ``QCONSUME_``."""
    app = Flask("tested")
    app.testing = True  # Allows publishing to memory before a worker runs.
    app.config["QCONSUME_BROKER_URL"] = "memory://"
    app.config.update({f"QCONSUME_{k.upper()}": v for k, v in config.items()})
    (qconsume or QConsume()).init_app(app)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    return app


def consumers(app: Flask) -> dict[str, t.Any]:
    """Return the consumers of an app by their full names."""
    return t.cast(dict[str, t.Any], app.extensions["qconsume"].consumers)
