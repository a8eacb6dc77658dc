"""The status of queues, on a real Redis."""

from __future__ import annotations

import contextlib
import json
import time

import pytest

from flask_qconsume.broker.base import QueueStatus
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.topology import Topology
from flask_qconsume.broker.urls import open_broker
from flask_qconsume.brokers.redis_lists import envelope
from flask_qconsume.brokers.redis_streams import entries
from flask_qconsume.errors import BrokerError

from ...waiting import wait_for
from .tools import EXCHANGE
from .tools import LinkedBroker
from .tools import forward
from .tools import linked_broker
from .tools import outgoing
from .tools import plan
from .tools import read
from .tools import settings


@pytest.fixture(params=["redis:", "redis-streams:"])
def url(request, redis_url):
    return redis_url.replace("redis:", request.param)


def status(linked: LinkedBroker) -> QueueStatus:
    (found,) = linked.broker.read_backlog([linked.plan], 10.0)
    return found


def test_a_delayed_message_that_is_due_waits_although_no_worker_moves_it(url):
    with linked_broker(url) as linked:
        began = time.time()
        linked.publish(outgoing(delay=0.3), outgoing(delay=60.0))
        assert (status(linked).waiting, status(linked).delayed) == (0, 2)
        wait_for(lambda: status(linked).waiting == 1)
        found = status(linked)
        assert (found.delayed, found.oldest) == (1, pytest.approx(began + 0.3, abs=0.2))
        assert linked.depth() == 0


def test_a_delayed_message_is_as_old_as_its_delay_is_over(url):
    with linked_broker(url) as linked:
        link = linked.link()
        began = time.time()
        linked.publish(outgoing(delay=0.3))
        link.release(read(link, 1))
        assert status(linked).oldest == pytest.approx(began + 0.3, abs=0.2)


def test_the_oldest_of_all_priorities_counts(url):
    with linked_broker(url) as linked:
        linked.publish(outgoing(priority=0))
        began = status(linked).oldest
        assert began is not None
        wait_for(lambda: time.time() - began > 1.1)
        linked.publish(outgoing(priority=9))
        assert status(linked).oldest == began
        link = linked.link()
        first, second = read(link, 2)
        assert first.message.priority == 9
        link.ack([second])
        link.release([first])
        oldest = status(linked).oldest
        assert oldest is not None and oldest > began


def test_a_large_suspect_is_not_decoded(url):
    with linked_broker(url) as linked:
        link = linked.link()
        linked.publish(outgoing(b"x" * 2_000_000))
        (delivery,) = read(link, 1)
        headers = {"x-qconsume-suspected-at": 1000.0}
        assert forward(link, delivery, Lane.SUSPECTS, headers=headers) is None
        suspects = status(linked).suspects
        assert suspects is not None
        assert (suspects.waiting, suspects.since) == (1, None)
        assert linked.broker.read_suspects(linked.plan).since == 1000.0


def test_a_key_of_another_type_is_an_error(url):
    with linked_broker(url) as linked:
        linked.client.set("billing", "mine")
        with pytest.raises(Exception, match="WRONGTYPE"):
            status(linked)


def test_one_script_reads_each_queue(url):
    plans = [plan(f"queue{number}") for number in range(20)]
    with linked_broker(url, *plans) as linked:
        linked.broker.declare()
        linked.broker.read_backlog(plans, 10.0)
        before = linked.client.info("commandstats")
        linked.broker.read_backlog(plans, 10.0)
        after = linked.client.info("commandstats")
        calls = {
            name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"]
            for name in after
        }
        # Of each stream or list, the length and the first element, and nothing else.
        streams = {"xlen": 5, "xpending": 5, "xinfo": 5, "xrange": 5}
        lists = {"llen": 8, "lindex": 8}
        expected = streams if "streams" in url else lists
        read = {
            name.removeprefix("cmdstat_").partition("|")[0]: count / 20
            for name, count in calls.items()
            if count
        }
        assert read == {
            **expected,
            **{"evalsha": 1, "time": 1, "zcount": 2},
            "zcard": 1 if "streams" in url else 3,
            "info": 1 / 20,
        }


def test_a_message_of_kombu_has_no_age(redis_url):
    foreign = {
        "body": "e30=",
        "headers": {"task": "bill"},
        "properties": {"delivery_tag": "1", "delivery_info": {}, "priority": 0},
    }
    with linked_broker(redis_url) as linked:
        for element in (b"{}", json.dumps(foreign).encode()):
            linked.client.lpush("billing", element)
            assert (status(linked).waiting, status(linked).oldest) == (1, None)
            linked.client.delete("billing")


def test_the_time_is_found_at_the_end_of_an_envelope():
    properties = {
        "headers": {"x": '"properties": {"timestamp": 5}'},
        "correlation_id": '"properties": {"timestamp": 6, ',
        "timestamp": 7,
    }
    target = {"exchange": "", "routing_key": "billing"}
    plain = envelope.encode_envelope(properties, b"x" * 10_000, **target)
    assert envelope.read_ready_time(plain[-4096:]) == 7.0
    delayed = envelope.encode_envelope(properties, b"x", **target, ready_at=8.5)
    assert envelope.read_ready_time(delayed) == 8.5
    # Another consumer, such as Celery's, is told nothing about it.
    assert envelope.read_element(delayed, "billing").properties == {
        "correlation_id": properties["correlation_id"]
    }
    for broken in (b"", b'"properties": {', b'"properties": {"timestamp": "7"}}'):
        assert envelope.read_ready_time(broken) is None


def test_an_id_that_another_program_chose_is_no_time(redis_url):
    assert entries.read_time(b"1796064788850-3") == 1796064788.85
    assert entries.read_time(b"7-1") is None
    with linked_broker(redis_url.replace("redis:", "redis-streams:")) as linked:
        linked.client.xadd("billing", {"body": "1"}, id="7-1")
        assert (status(linked).waiting, status(linked).oldest) == (1, None)


@pytest.mark.parametrize("scheme", ["sentinel:", "sentinel-streams:"])
def test_sentinels_lead_to_the_counts_before_and_after_a_failover(
    redis_sentinel, scheme
):
    url = redis_sentinel.url.replace("sentinel:", scheme)
    options = {"master_name": "shop"}
    with open_one(url, transport_options=options) as broker:
        broker.declare()
        assert broker.publish([outgoing()], 10.0) == [None]
        redis_sentinel.await_replica()
        plans = broker.topology.queues
        (before,) = broker.read_backlog(plans, 10.0)
        assert (before.waiting, before.dead_letters) == (1, 0)
        redis_sentinel.fail_over()

        def read_again() -> QueueStatus | None:
            with contextlib.suppress(BrokerError):
                return broker.read_backlog(plans, 10.0)[0]
            return None

        assert wait_for(read_again, 30) == before


@contextlib.contextmanager
def open_one(url, **config):
    """A broker object for the length of a block."""
    topology = Topology(EXCHANGE, (plan(),))
    broker = open_broker(settings(url, **config), topology)
    try:
        yield broker
    finally:
        broker.close()
