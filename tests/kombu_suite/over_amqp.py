"""kombu's tests over the transport that our RabbitMQ broker uses."""

from __future__ import annotations

import pytest
from kombu.transport import TRANSPORT_ALIASES

from flask_qconsume.brokers.rabbitmq.amqp import transport

from .cases import *  # noqa: F403  The tests and their fixtures.


@pytest.fixture
def url(rabbitmq_url, monkeypatch):
    monkeypatch.setitem(TRANSPORT_ALIASES, "amqp", f"{transport.__name__}:Transport")
    return rabbitmq_url
