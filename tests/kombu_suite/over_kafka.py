"""kombu's tests over the ``kafka`` transport."""

from __future__ import annotations

import kombu
import pytest
from t.integration import common

import flask_qconsume.transports.kafka  # noqa: F401  Makes the scheme known.

NOBODY_LISTENS = "kafka://127.0.0.1:1"


@pytest.fixture
def connection(kafka_url):
    # One partition, so that there is an order, which is not that of priorities.
    one = {"partitions": 1}
    with kombu.Connection(kafka_url, transport_options=one) as connection:
        yield connection


@pytest.fixture
def invalid_connection():
    return kombu.Connection(NOBODY_LISTENS)


@pytest.fixture
def failover_connection(kafka_url):
    with kombu.Connection(f"{NOBODY_LISTENS};{kafka_url}") as connection:
        yield connection


class TestBasics(common.BasicFunctionality):
    pass


class TestExchanges(common.BaseExchangeTypes):
    pass


class TestExpiration(common.BaseTimeToLive):
    pass


class TestPriorities(common.BasePriority):
    pass


class TestFailover(common.BaseFailover):
    pass


class TestSettling(common.BaseMessage):
    pass


class TestEventLoop(common.BaseEventLoop):
    pass
