"""kombu's tests over the ``redis-streams`` transport."""

from __future__ import annotations

import contextlib

import kombu
import pytest
from t.integration import common

import flask_qconsume.transports.redis_streams  # noqa: F401  Makes the scheme known.

NOBODY_LISTENS = "redis-streams://127.0.0.1:1/0"


@pytest.fixture
def streams_url(redis_url):
    return redis_url.replace("redis:", "redis-streams:")


@pytest.fixture
def connection(streams_url):
    with kombu.Connection(streams_url) as connection:
        yield connection


@pytest.fixture
def invalid_connection():
    return kombu.Connection(NOBODY_LISTENS)


@pytest.fixture
def failover_connection(streams_url):
    with kombu.Connection(f"{NOBODY_LISTENS};{streams_url}") as connection:
        yield connection


class TestBasics(common.BasicFunctionality):
    pass


class TestExchanges(common.BaseExchangeTypes):
    pass


class TestExpiration(common.BaseTimeToLive):
    pass


class Draining(kombu.Connection):
    """Delivers all that is there at once, as the tests on priorities expect it."""

    def drain_events(self, **kwargs):
        with contextlib.suppress(TimeoutError):
            while True:
                super().drain_events(**kwargs)


class TestPriorities(common.BasePriority):
    @pytest.fixture
    def connection(self, streams_url):
        with Draining(streams_url) as connection:
            yield connection


class TestFailover(common.BaseFailover):
    pass


class TestSettling(common.BaseMessage):
    pass


class TestEventLoop(common.BaseEventLoop):
    pass
