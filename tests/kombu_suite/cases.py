"""kombu's own test classes, and the connections that they ask for as fixtures.

A module named ``over_*`` imports all of this, and says by a fixture ``url`` where the
broker is.
"""

from __future__ import annotations

import kombu
import pytest
from t.integration import common


@pytest.fixture
def transport_options():
    return {}


@pytest.fixture
def connection(url, transport_options):
    with kombu.Connection(url, transport_options=transport_options) as connection:
        yield connection


@pytest.fixture
def closed_url(url):
    """URL of a port at which no broker listens."""
    return f"{url.partition(':')[0]}://127.0.0.1:1"


@pytest.fixture
def invalid_connection(closed_url):
    return kombu.Connection(closed_url)


@pytest.fixture
def failover_connection(closed_url, url):
    with kombu.Connection(f"{closed_url};{url}") as connection:
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
