"""Clients of a setup connect to its proxies only."""

from __future__ import annotations

import pathlib

import pytest
from confluent_kafka.admin import AdminClient

from ..servers import Kafka
from ..servers.fixtures import refuse
from .setups import open_setup


@pytest.fixture(autouse=True)
def kafka_is_there() -> None:
    if reason := Kafka.missing():
        refuse(f"Kafka is not installed: {reason}")


def test_kafka_names_the_proxies_to_clients_that_connect_through_them(
    tmp_path: pathlib.Path,
) -> None:
    with open_setup("kafka", tmp_path) as setup:
        (proxy,) = setup.proxies
        clients = {"bootstrap.servers": proxy.address}
        named = AdminClient(clients).list_topics(timeout=30).brokers.values()
        direct = setup.server.admin().list_topics(timeout=30).brokers.values()

    assert setup.url == f"kafka://{proxy.address}"
    assert [broker.port for broker in named] == [proxy.port]
    assert [broker.port for broker in direct] == [setup.server.port]
