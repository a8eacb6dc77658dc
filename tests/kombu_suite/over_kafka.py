"""kombu's tests over the ``kafka`` transport."""

from __future__ import annotations

import pytest

import flask_qconsume.transports.kafka  # noqa: F401  Makes the scheme known.

from .cases import *  # noqa: F403  The tests and their fixtures.


@pytest.fixture
def url(kafka_url):
    return kafka_url


@pytest.fixture
def transport_options():
    # The tests expect an order, which Kafka has within one partition only.
    return {"partitions": 1}
