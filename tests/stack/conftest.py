"""The shop under load, and a Prometheus that scrapes it, for all tests of a module."""

from __future__ import annotations

import re
import typing as t

import pytest
import yaml

from example_app.tests.running import Shop

from ..servers import Prometheus
from ..servers import Redis
from ..servers.ports import HOST
from ..servers.ports import free_port
from .files import RULES


@pytest.fixture(scope="session")
def health_address() -> str:
    """The address at which the shop answers ``/metrics``."""
    return f"{HOST}:{free_port()}"


@pytest.fixture(scope="session")
def shop(
    tmp_path_factory: pytest.TempPathFactory, redis_server: Redis, health_address: str
) -> t.Iterator[Shop]:
    """A shop on Redis, whose gateway fails for some cards only."""
    with Shop(
        tmp_path_factory.mktemp("shop"),
        redis_server.fresh_url(),
        "--health",
        health_address,
        supplier_seconds=600.0,
        environment={"FLASK_QCONSUME_METRICS": "true"},
    ) as shop:
        yield shop


@pytest.fixture(scope="session")
def prometheus(
    tmp_path_factory: pytest.TempPathFactory, shop: Shop, health_address: str
) -> t.Iterator[Prometheus]:
    """A Prometheus that scrapes the shop, and has our rules with short times."""
    rules = yaml.safe_load(shorten(RULES.read_text("utf-8")))
    folder = tmp_path_factory.mktemp("prometheus")
    with Prometheus(folder, {"shop": [health_address]}, rules) as prometheus:
        yield prometheus


def shorten(rules: str) -> str:
    """Let seconds stand for minutes in the rules' windows and waits."""
    rules = re.sub(r"\[(5|15)m\]", "[10s]", rules)
    return re.sub(r"^( +for: )\d+m$", r"\g<1>1s", rules, flags=re.M)
