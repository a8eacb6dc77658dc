"""kombu's tests over the transport that our RabbitMQ broker uses."""

from __future__ import annotations

import kombu
import pytest
from t.integration import common

from flask_qconsume.brokers.rabbitmq.amqp import transport as amqp

NOBODY_LISTENS = "amqp://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _ours():
    """Make kombu use our transport for the scheme."""
    from kombu.transport import TRANSPORT_ALIASES

    before = TRANSPORT_ALIASES["amqp"]
    TRANSPORT_ALIASES["amqp"] = f"{amqp.__name__}:Transport"
    yield
    TRANSPORT_ALIASES["amqp"] = before


@pytest.fixture
def connection(rabbitmq_url):
    with kombu.Connection(rabbitmq_url) as connection:
        yield connection


@pytest.fixture
def invalid_connection():
    return kombu.Connection(NOBODY_LISTENS)


@pytest.fixture
def failover_connection(rabbitmq_url):
    with kombu.Connection(f"{NOBODY_LISTENS};{rabbitmq_url}") as connection:
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
