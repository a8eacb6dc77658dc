"""The URL that a kombu connection uses, in each form in which kombu stores it."""

from __future__ import annotations

import pytest
from kombu import Connection

import flask_qconsume.transports.kafka
import flask_qconsume.transports.redis_streams  # noqa: F401  Makes the scheme known.
from flask_qconsume.transports.kombu_url import find_current_url

FIRST = "redis-streams://first:1/0"


@pytest.mark.parametrize(
    "url",
    [
        "redis-streams://user:p%40ss@host:2/3",
        "redis-streams://:secret@host/3",
        "redis-streams://[::1]:2/3",
        "redis-streams+socket:///run/redis",
        "rediss-streams://host:2/3",
    ],
)
def test_a_url_is_the_same_however_it_was_given(url):
    assert find_current_url(Connection(url)) == url
    switched = Connection(FIRST)
    switched.switch(url)
    assert find_current_url(switched) == url


def test_an_alternate_may_stand_beside_a_url_with_several_hosts():
    connection = Connection("kafka://a:1,b:2;kafka://user:secret@c:3")
    assert find_current_url(connection) == "kafka://a:1,b:2"
    connection.switch("kafka://user:secret@c:3")
    assert find_current_url(connection).rstrip("/") == "kafka://user:secret@c:3"


def test_an_alternate_keeps_its_query():
    second = "rediss-streams://host:2/3?ssl_cert_reqs=required"
    connection = Connection(f"{FIRST};{second}")
    assert find_current_url(connection) == FIRST
    connection.maybe_switch_next()
    assert find_current_url(connection) == second
