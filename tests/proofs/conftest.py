"""Fixtures of the proofs: deployments with a broker and worker processes."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from flask import Flask

from flask_qconsume.broker.dead_letters import DeadLetter
from flask_qconsume.extension import AppConsumers

from ..fleet.app import create_app
from ..fleet.workers import Fleet
from ..servers import Database
from ..servers import Vhost
from ..servers.fixtures import require
from ..waiting import wait_for

#: Kafka removes a killed member soon, so that other members get its partitions.
KAFKA = {
    "TRANSPORT_OPTIONS": {
        "partitions": 8,
        "kafka_common_config": {"message.max.bytes": 4_194_304},
        "kafka_consumer_config": {
            "session.timeout.ms": 2_000,
            "heartbeat.interval.ms": 500,
        },
    }
}

SENTINEL = {"LEASE": 2, "TRANSPORT_OPTIONS": {"master_name": "shop"}}

BROKERS = {
    "quorum": ("own_rabbitmq_vhost", {"QUEUE_TYPE": "quorum"}),
    "classic": ("own_rabbitmq_vhost", {"QUEUE_TYPE": "classic"}),
    "redis": ("own_redis", {"LEASE": 2}),
    "streams": ("own_redis", {"LEASE": 2}),
    "kafka": ("own_kafka", KAFKA),
    "cluster": ("own_kafka_cluster", KAFKA),
    "sentinel": ("redis_sentinel", SENTINEL),
    "sentinel-streams": ("redis_sentinel", SENTINEL),
    "postgresql": ("own_postgresql_database", {"LEASE": 2}),
    "postgresql-pair": ("postgresql_pair", {"LEASE": 2}),
    "sqlite": ("own_sqlite", {"LEASE": 2}),
}

#: URL schemes that differ from that of the server's URL.
SCHEMES = {"streams": "redis-streams", "sentinel-streams": "sentinel-streams"}


#: The brokers of most proofs, each on one server.
EVERYWHERE = [
    "quorum",
    "classic",
    "redis",
    "streams",
    "kafka",
    "postgresql",
    "sqlite",
]


def on_each_broker(*long: str, but: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Run a proof on each broker.

    :param long: Brokers on which the proof is a long test, since it runs the same code
        on another broker.
    :param but: Brokers on which it cannot run.
    """
    marks = {broker: pytest.mark.long for broker in long}
    brokers = [each for each in EVERYWHERE if each not in but]
    values = [pytest.param(each, marks=marks.get(each, ())) for each in brokers]
    return pytest.mark.parametrize("broker", values)


class Deployment:
    """A broker, an app that publishes to it, and worker processes."""

    def __init__(self, fleet: Fleet, app: Flask, backend: t.Any) -> None:
        self.fleet = fleet
        self.ledger = fleet.ledger
        self.app = app
        #: The broker, which a test may stop and start.
        self.server = getattr(backend, "server", backend)
        #: The virtual host, on RabbitMQ.
        self.vhost = backend if isinstance(backend, Vhost) else None
        #: The database, on PostgreSQL.
        self.database = backend if isinstance(backend, Database) else None

    @property
    def consumers(self) -> AppConsumers:
        return t.cast(AppConsumers, self.app.extensions["qconsume"])

    def publish(self, numbers: t.Iterable[int], **body: t.Any) -> None:
        """Publish one message for each number, all confirmed."""
        messages = [("work", {"n": n, **body}) for n in numbers]
        for at in range(0, len(messages), 1000):
            self.consumers.publish_many(messages[at : at + 1000])

    def dead(self) -> list[DeadLetter]:
        plan = self.consumers.topology.queue("work")
        return list(self.consumers.broker.dead_letters(plan))

    def await_done(self, numbers: t.Iterable[int], timeout: float = 60) -> None:
        """Wait until each number has been handled at least once."""
        wanted = set(numbers)

        def missing() -> set[int]:
            return wanted - set(self.ledger.counted())

        wait_for(
            lambda: not missing(),
            timeout,
            interval=0.1,
            message=lambda: (
                f"{len(missing())} of {len(wanted)} not handled, such as"
                f" {sorted(missing())[:5]}\n{self.fleet.logs()[-3000:]}"
            ),
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that name their broker in a parameter."""
    for item in items:
        if "make_deployment" in getattr(item, "fixturenames", ()):
            item.add_marker("broker")


MakeDeployment = t.Callable[..., Deployment]


@pytest.fixture
def make_deployment(
    request: pytest.FixtureRequest,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> t.Iterator[MakeDeployment]:
    """Return a function that makes a deployment on a broker."""
    deployments: list[Deployment] = []

    def make(broker: str, **config: t.Any) -> Deployment:
        fixture, options = BROKERS[broker]
        require(fixture)
        backend = request.getfixturevalue(fixture)
        scheme, rest = backend.url.split(":", 1)
        url = f"{SCHEMES.get(broker, scheme)}:{rest}"
        fleet = Fleet(tmp_path, {"BROKER_URL": url, **options, **config})
        for key, value in fleet.environment().items():
            if key.startswith("FLASK_QCONSUME_"):
                monkeypatch.setenv(key, value)
        deployments.append(Deployment(fleet, create_app(), backend))
        return deployments[-1]

    yield make
    for deployment in deployments:
        deployment.fleet.close()
        deployment.consumers.close()
