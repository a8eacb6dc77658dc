"""A publish that counts only once replicas have it, on a server with a replica."""

from __future__ import annotations

import time

import pytest

from flask_qconsume.broker.topology import Topology
from flask_qconsume.broker.urls import open_broker
from flask_qconsume.errors import ConfigurationError
from flask_qconsume.errors import PublishTimeout

from ...servers import Redis
from ...waiting import wait_for
from .tools import bodies
from .tools import linked_broker
from .tools import outgoing
from .tools import read
from .tools import settings

NOTHING = Topology("shop", ())

both = pytest.mark.parametrize("scheme", ["redis:", "redis-streams:"])


@pytest.fixture
def replica(own_redis, tmp_path):
    own_redis.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    with Redis(tmp_path / "replica") as made:
        made.command("REPLICAOF", "127.0.0.1", own_redis.port)
        with own_redis.client() as client:
            client.set("known", 1)
            wait_for(lambda: client.wait(1, 100) == 1, timeout=30)
        yield made


@both
def test_what_was_confirmed_is_on_the_replica(own_redis, replica, scheme):
    options = {"wait_replicas": 1, "wait_timeout": 5}
    url = own_redis.url.replace("redis:", scheme)
    with (
        linked_broker(url, transport_options=options) as linked,
        replica.client() as there,
    ):
        for number in range(1, 51):
            linked.publish(outgoing())
            length = there.xlen if "streams" in scheme else there.llen
            assert length("billing") == number


@both
def test_a_publish_that_no_replica_gets_is_an_error_and_is_not_sent_twice(
    own_redis, replica, scheme
):
    options = {"wait_replicas": 1, "wait_timeout": 0.5}
    url = own_redis.url.replace("redis:", scheme)
    with linked_broker(url, transport_options=options) as linked:
        linked.publish(outgoing(b"1"))
        with replica.frozen():
            started = time.monotonic()
            error = linked.broker.publish([outgoing(b"2")], 10.0)[0]
            assert time.monotonic() - started < 5
        assert isinstance(error, PublishTimeout)
        assert "only 0 of the 1 replicas that 'wait_replicas' asks for" in str(error)
        assert linked.depth() == 2
        # Settling does not wait: what the replica has is some moment of the server's.
        link = linked.link()
        with replica.frozen():
            found = read(link, 2)
            link.ack(found)
        assert bodies(found) == [b"1", b"2"]


@both
@pytest.mark.parametrize(
    "options",
    [{"wait_replicas": "all"}, {"wait_replicas": True}, {"wait_replicas": -1}]
    + [{"wait_timeout": 0}, {"wait_timeout": "1"}],
)
def test_options_that_make_no_sense_are_refused(scheme, options):
    (name,) = options
    with pytest.raises(ConfigurationError, match=f"'{name}'.* must be a number"):
        open_broker(settings(f"{scheme}//h", transport_options=options), NOTHING)
