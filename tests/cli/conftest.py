"""Fixtures: an app of one file, and the commands of `flask qconsume` on it."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from flask import Flask

from .commands import Commands

SHOP = """
import os
import socket
import sys
import time

from flask import Flask

from flask_qconsume import ConsumerBlueprint
from flask_qconsume import QConsume
from flask_qconsume import Reject
from flask_qconsume import signals

bp = ConsumerBlueprint("orders", __name__)


def take(seconds):
    time.sleep(seconds)


def hang():
    ours, theirs = socket.socketpair()
    ours.recv(1)


@bp.consumer("bill", routing_key=["order.created", "order.paid"], concurrency=3)
def bill(order):
    if isinstance(order, dict) and order.get("reject"):
        raise Reject(order["reject"])
    if isinstance(order, dict) and order.get("fail"):
        raise ValueError(order["fail"])
    print("billing begins", flush=True)
    take(order.get("seconds", 0) if isinstance(order, dict) else 0)
    print("billed", order, flush=True)


@bp.consumer("audit", routing_key="#", retry={"max_attempts": 1})
def audit(body):
    pass


@bp.get("/")
def index():
    return {"pid": os.getpid(), "gevent": "gevent" in sys.modules}


@bp.get("/slow/<float:seconds>")
def slow(seconds):
    print("slow began", flush=True)
    take(seconds)
    return "slow"


def create_app():
    app = Flask(__name__)
    app.config.from_mapping(QCONSUME_BROKER_URL="memory://")
    app.config.from_prefixed_env()
    QConsume(app)
    app.register_blueprint(bp)
    return app
"""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Folder of the app."""
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


@pytest.fixture
def commands(folder: pathlib.Path) -> Commands:
    """Commands on the app, with the broker in memory."""
    return Commands(folder, {})


@pytest.fixture
def on_redis(folder: pathlib.Path, redis_url: str) -> Commands:
    """Commands on the app, with a Redis of the test's own."""
    return Commands(folder, {"BROKER_URL": redis_url})


@pytest.fixture
def on_rabbitmq(folder: pathlib.Path, rabbitmq_url: str) -> Commands:
    """Commands on the app, with a virtual host of the test's own on RabbitMQ."""
    return Commands(folder, {"BROKER_URL": rabbitmq_url})


@pytest.fixture
def make_app(folder: pathlib.Path) -> t.Iterator[MakeApp]:
    """Function that creates the app in this process, with configuration."""
    made: list[Flask] = []

    def make(**config: t.Any) -> Flask:
        space: dict[str, t.Any] = {"__name__": "shop"}
        exec(SHOP, space)
        with pytest.MonkeyPatch.context() as patch:
            for key, value in config.items():
                text = value if isinstance(value, str) else json.dumps(value)
                patch.setenv(f"FLASK_QCONSUME_{key}", text)
            made.append(space["create_app"]())
        return made[-1]

    yield make
    for app in made:
        app.extensions["qconsume"].close()


MakeApp = t.Callable[..., Flask]
