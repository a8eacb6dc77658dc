"""kombu's tests over the ``redis-streams`` transport."""

from __future__ import annotations

import contextlib

import kombu
import pytest
from t.integration import common

import flask_qconsume.transports.redis_streams  # noqa: F401  Makes the scheme known.

from .cases import *  # noqa: F403  The tests and their fixtures.


@pytest.fixture
def url(redis_url):
    return redis_url.replace("redis:", "redis-streams:")


class DrainingConnection(kombu.Connection):
    """Delivers at once all messages that are there, as tests of priorities expect."""

    def drain_events(self, **kwargs):
        with contextlib.suppress(TimeoutError):
            while True:
                super().drain_events(**kwargs)


class TestPriorities(common.BasePriority):
    @pytest.fixture
    def connection(self, url):
        with DrainingConnection(url) as connection:
            yield connection
