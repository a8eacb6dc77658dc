"""Publishing, routing and declaring, on a real Redis."""

from __future__ import annotations

import ssl
import subprocess
import sys
import time

import gevent
import pytest
from kombu import Exchange
from kombu import Queue
from kombu import binding

from flask_qconsume.broker.topology import Topology
from flask_qconsume.brokers.redis.server import Server
from flask_qconsume.brokers.redis_lists import RedisLists
from flask_qconsume.errors import BrokerRefused
from flask_qconsume.errors import PublishRefused
from flask_qconsume.errors import PublishTimeout
from flask_qconsume.errors import TopologyMismatch
from flask_qconsume.errors import Unroutable
from flask_qconsume.errors import UnsupportedByBroker

from ...broker.certificates import Certificates
from .tools import linked_broker
from .tools import outgoing
from .tools import plan
from .tools import settings


def test_a_binding_made_elsewhere_is_seen_when_nothing_is_bound(redis_url):
    with (
        linked_broker(redis_url) as linked,
        linked_broker(redis_url, plan("mail", "mail.*")) as other,
    ):
        first = linked.broker.publish([outgoing(routing_key="mail.sent")], 5.0)
        assert isinstance(first[0], Unroutable)
        other.broker.declare()
        linked.publish(outgoing(routing_key="mail.sent"))


def test_bindings_come_back_after_redis_was_emptied(redis_url):
    with linked_broker(redis_url) as linked:
        linked.publish(outgoing())
        linked.client.flushdb()
        linked.publish(outgoing())
        linked.client.flushdb()
        linked.publish(outgoing())
        assert linked.depth() == 1


def test_a_message_is_in_all_queues_or_in_none(redis_url):
    with linked_broker(
        redis_url, plan("billing", "order"), plan("mail", "order")
    ) as linked:
        linked.broker.declare()
        linked.client.set("mail", "somebody else's")
        error = linked.broker.publish([outgoing(routing_key="order")], 5.0)[0]
        assert isinstance(error, TopologyMismatch)
        assert linked.depth("billing") == 0


def test_headers_that_json_cannot_hold_are_that_messages_error_only(redis_url):
    with linked_broker(redis_url) as linked:
        wrong = outgoing(headers={"x": object()})
        found = linked.broker.publish([outgoing(), wrong], 5.0)
        assert found[0] is None
        assert isinstance(found[1], PublishRefused)


def test_fifty_greenlets_publish_at_once(redis_url):
    with linked_broker(redis_url) as linked:

        def publish(number: int) -> None:
            for _ in range(10):
                linked.publish(outgoing(b"%d" % number))

        greenlets = [gevent.spawn(publish, number) for number in range(50)]
        gevent.joinall(greenlets, timeout=30, raise_error=True)
        assert linked.depth() == 500
        assert len(linked.client.client_list()) < 15


def test_a_thread_of_gevents_pool_publishes_beside_the_hub(redis_url):
    with linked_broker(redis_url) as linked:
        linked.publish(outgoing())
        pool = gevent.get_hub().threadpool
        for _ in range(3):
            pool.apply(linked.publish, [outgoing()])
            linked.publish(outgoing())
        assert linked.depth() == 7


UNPATCHED = """
import os, sys, threading
from tests.brokers.redis.tools import linked_broker, outgoing, plan
from tests.waiting import wait_for
from gevent import monkey
assert not monkey.is_module_patched("socket")
with linked_broker(sys.argv[1]) as linked:
    linked.publish(outgoing())
    threads = [
        threading.Thread(target=lambda: [linked.publish(outgoing()) for _ in range(20)])
        for _ in range(20)
    ]
    for thread in threads: thread.start()
    children = []
    for _ in range(3):
        child = os.fork()
        if not child:
            linked.publish(*[outgoing() for _ in range(100)])
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    for thread in threads: thread.join()
    linked.publish(outgoing())
    link = linked.link()
    assert len(link.read(10)) == 10
    link.close()
    waiting = linked.link(plan=plan("empty"))
    reader = threading.Thread(target=waiting.read, args=(1,))
    reader.start()
    wait_for(lambda: linked.client.info("clients")["blocked_clients"])
    waiting.close()
    reader.join(0.5)
    assert not reader.is_alive()
"""


@pytest.mark.filterwarnings("ignore")
def test_threads_and_forks_of_an_unpatched_process_publish(redis_url):
    with linked_broker(redis_url) as linked:
        command = [sys.executable, "-W", "ignore", "-c", UNPATCHED, redis_url]
        done = subprocess.run(command, timeout=60, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert linked.depth() == 1 + 400 + 300 + 1


def test_a_wrong_password_is_told_at_once(own_redis):
    own_redis.command("CONFIG", "SET", "requirepass", "secret")
    for url in (own_redis.url, own_redis.url.replace("//", "//:wrong@")):
        broker = RedisLists(settings(url), Topology("shop", (plan(),)))
        assert isinstance(broker.publish([outgoing()], 5.0)[0], BrokerRefused)
        with pytest.raises(BrokerRefused):
            broker.declare()
        broker.close()


def test_a_user_without_permission_is_told_at_once(own_redis):
    own_redis.command("ACL", "SETUSER", "shop", "on", ">pw", "~*", "+@all", "-evalsha")
    url = own_redis.url.replace("//", "//shop:pw@")
    broker = RedisLists(settings(url), Topology("shop", (plan(),)))
    assert isinstance(broker.publish([outgoing()], 5.0)[0], BrokerRefused)
    broker.close()


def test_a_redis_that_hangs_is_told_within_the_time(own_redis):
    with linked_broker(own_redis.url) as linked:
        linked.publish(outgoing())
        with own_redis.frozen():
            started = time.monotonic()
            found = linked.broker.publish([outgoing(), outgoing()], 0.5)
            assert [type(each) for each in found] == [PublishTimeout] * 2
            assert time.monotonic() - started < 1.5
        linked.publish(outgoing())


def test_never_declares_nothing(redis_url):
    with linked_broker(redis_url, declare="never") as linked:
        linked.broker.declare()
        assert linked.client.keys("*") == []
        assert isinstance(linked.broker.publish([outgoing()], 5.0)[0], Unroutable)


def test_a_key_of_another_type_is_told_when_declaring(redis_url):
    with linked_broker(redis_url) as linked:
        linked.client.set("billing", "somebody else's")
        with pytest.raises(TopologyMismatch, match="billing"):
            linked.broker.declare()


def test_a_queue_of_kombus_is_bound_as_it_says(redis_url):
    direct, events = Exchange("direct", "direct"), Exchange("events", "topic")
    bindings = [binding(direct, routing_key="a.*"), binding(events, routing_key="b.#")]
    given = Queue("theirs", bindings=bindings)
    with linked_broker(redis_url, plan("theirs", given=given)) as linked:
        linked.publish(outgoing(exchange="direct", routing_key="a.*"))
        linked.publish(outgoing(exchange="events", routing_key="b"))
        wrong = linked.broker.publish(
            [outgoing(exchange="direct", routing_key="a.b")], 5.0
        )
        assert isinstance(wrong[0], Unroutable)
        assert linked.depth("theirs") == 2
        assert linked.broker.stale_bindings() == []


@pytest.mark.parametrize(
    "given",
    [
        Queue("theirs", Exchange("news", "fanout")),
        Queue("theirs", Exchange("news"), routing_key="a", expires=60),
    ],
)
def test_a_queue_of_kombus_that_would_lose_messages_is_refused(given, redis_url):
    queue = plan("theirs", given=given)
    with linked_broker(redis_url, queue) as linked, pytest.raises(UnsupportedByBroker):
        linked.broker.declare()


@pytest.mark.process
def test_certificates_are_checked_unless_the_url_says_otherwise(tmp_path):
    authority = Certificates(tmp_path).path("right")

    def kwargs(url: str):
        return Server(settings(url))._get_pool()._pool.connection_kwargs

    assert kwargs("rediss://localhost")["ssl_cert_reqs"] == ssl.CERT_REQUIRED
    unchecked = kwargs("rediss://localhost?ssl_cert_reqs=none")
    assert unchecked["ssl_cert_reqs"] == ssl.CERT_NONE
    own = kwargs(f"rediss://localhost?ssl_ca_certs={authority}")
    assert own["ssl_ca_certs"] == authority
    assert own.get("ssl_cert_reqs", "required") == "required"
