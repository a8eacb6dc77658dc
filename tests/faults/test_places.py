"""What we are told to connect to is the proxy, and nothing else."""

from __future__ import annotations

import pathlib

import pytest
from confluent_kafka.admin import AdminClient

from ..servers import Kafka
from ..servers.fixtures import refuse
from .places import opened


@pytest.fixture(autouse=True)
def kafka_is_there() -> None:
    if reason := Kafka.missing():
        refuse(f"Kafka is not installed: {reason}")


def test_a_kafka_names_the_proxies_to_whoever_comes_by_them(
    tmp_path: pathlib.Path,
) -> None:
    with opened("kafka", tmp_path) as place:
        (proxy,) = place.proxies
        clients = {"bootstrap.servers": proxy.address}
        told = AdminClient(clients).list_topics(timeout=30).brokers.values()
        direct = place.server.admin().list_topics(timeout=30).brokers.values()

    assert place.url == f"kafka://{proxy.address}"
    assert [broker.port for broker in told] == [proxy.port]
    assert [broker.port for broker in direct] == [place.server.port]
