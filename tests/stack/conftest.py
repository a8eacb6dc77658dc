"""The shop under load, and a Prometheus that scrapes it, for all tests of a module."""

from __future__ import annotations

import os
import re
import signal
import sys
import typing as t

import pytest
import yaml

from example_app.tests.running import Shop

from ..servers import Prometheus
from ..servers import Redis
from ..servers.ports import HOST
from ..servers.ports import free_port
from ..servers.server import end
from ..servers.server import spawn
from ..waiting import wait_for
from .files import ROOT
from .files import RULES


@pytest.fixture(scope="session")
def addresses() -> dict[str, str]:
    """The address at which each job of Prometheus answers ``/metrics``."""
    return {job: f"{HOST}:{free_port()}" for job in ("shop", "storm")}


@pytest.fixture(scope="session")
def shop(
    tmp_path_factory: pytest.TempPathFactory,
    redis_server: Redis,
    addresses: dict[str, str],
) -> t.Iterator[Shop]:
    """A shop on Redis, whose gateway fails for some cards only."""
    with Shop(
        tmp_path_factory.mktemp("shop"),
        redis_server.fresh_url(),
        "--health",
        addresses["shop"],
        supplier_seconds=600.0,
        environment={"FLASK_QCONSUME_METRICS": "true"},
    ) as shop:
        yield shop


@pytest.fixture(scope="session")
def storm_url(
    tmp_path_factory: pytest.TempPathFactory,
    redis_server: Redis,
    addresses: dict[str, str],
    prometheus: Prometheus,
) -> t.Iterator[str]:
    """The broker of a worker of :mod:`.storm_app`, which Prometheus has seen."""
    folder = tmp_path_factory.mktemp("storm")
    url = redis_server.fresh_url()
    command = "-m flask --app tests.stack.storm_app qconsume run --health"
    process = spawn(
        [sys.executable, *command.split(), addresses["storm"]],
        env={
            **os.environ,
            "FLASK_QCONSUME_BROKER_URL": url,
            "FLASK_QCONSUME_METRICS": "true",
            "FLASK_QCONSUME_BLOCKED_AFTER": "2",
            "FLASK_QCONSUME_LOG_TRACEBACKS": "never",
        },
        folder=ROOT,
        output=folder / "output",
    )
    connected = 'qconsume_connected{consumer="charge"} == 1'
    wait_for(lambda: prometheus.query(connected), timeout=30.0, interval=0.2)
    yield url
    end(process, signal.SIGKILL, timeout=10.0)


@pytest.fixture(scope="session")
def prometheus(
    tmp_path_factory: pytest.TempPathFactory,
    shop: Shop,
    addresses: dict[str, str],
) -> t.Iterator[Prometheus]:
    """A Prometheus that scrapes the shop, and has our rules with short times.

    It also scrapes the worker of :mod:`.storm_app` once that runs.
    """
    rules = yaml.safe_load(shorten(RULES.read_text("utf-8")))
    targets = {job: [address] for job, address in addresses.items()}
    folder = tmp_path_factory.mktemp("prometheus")
    with Prometheus(folder, targets, rules) as prometheus:
        yield prometheus


def shorten(rules: str) -> str:
    """Let seconds stand for minutes in the rules' windows and waits."""
    rules = re.sub(r"\[(5|15)m\]", "[10s]", rules)
    return re.sub(r"^( +for: )\d+m$", r"\g<1>1s", rules, flags=re.M)
