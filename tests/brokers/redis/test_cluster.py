"""Streams on a Redis Cluster: three nodes with slots, and a replica of the first."""

from __future__ import annotations

import gevent
import pytest
from redis.crc import key_slot

from flask_qconsume.broker import headers
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.topology import Topology
from flask_qconsume.broker.urls import open_broker
from flask_qconsume.errors import BrokerError
from flask_qconsume.errors import BrokerUnavailable
from flask_qconsume.errors import ConfigurationError

from ...waiting import wait_for
from .tools import allow_long_waits
from .tools import bodies
from .tools import forward
from .tools import linked_broker
from .tools import outgoing
from .tools import plan
from .tools import read
from .tools import settings


@pytest.fixture
def queues(redis_cluster):
    """The name of a queue on each node."""
    return [redis_cluster.queue_on(node) for node in redis_cluster.masters()]


def plans(queues):
    return [plan(name, "order.#") for name in queues]


def test_a_message_goes_all_its_ways_within_its_node(redis_cluster, queues):
    one, _, _ = queues
    with linked_broker(redis_cluster.url, plan(one)) as linked:
        linked.publish(outgoing(b"1", routing_key=one, priority=9))
        linked.publish(outgoing(b"2", routing_key=one, delay=0.05))
        link, suspects = linked.link(), linked.link(Lane.SUSPECTS)
        first, second = read(link, 2)
        copied = headers.make_retry_headers(first.message, 2)
        assert forward(link, first, Lane.MAIN, headers=copied, delay=0.05) is None
        assert forward(link, second, Lane.SUSPECTS) is None
        retried, suspected = read(link, 1)[0], read(suspects, 1)[0]
        assert retried.message.attempt == 2
        written = headers.make_dead_letter_headers(
            suspected.message, "b", one, "no", None, 1.0
        )
        assert forward(suspects, suspected, Lane.DEAD, headers=written) is None
        letters = linked.broker.dead_letters(linked.plan)
        assert [letter.message.raw for letter in letters] == [b"2"]
        assert letters.take(lambda letter: True, replay=True) == 1
        link.ack([retried, *read(link, 1)])
        link.keep_alive()
        assert linked.depth(one) == 0


def test_every_queue_gets_its_copy_on_whichever_node(redis_cluster, queues):
    with linked_broker(redis_cluster.url, *plans(queues)) as linked:
        linked.publish(
            *(outgoing(b"%d" % n, routing_key="order.new") for n in range(50))
        )
        linked.publish(outgoing(b"50", routing_key="order.new", delay=0.01))
        for each in linked.broker.topology.queues:
            found = read(linked.link(plan=each), 51)
            assert sorted(bodies(found), key=int) == [b"%d" % n for n in range(51)]


def test_a_reader_that_waits_is_woken(redis_cluster, queues):
    with linked_broker(redis_cluster.url, plan(queues[2])) as linked:
        link = allow_long_waits(linked.link())
        reader = gevent.spawn(read, link, 1)
        linked.publish(outgoing(b"1", routing_key=queues[2]))
        link.ack(reader.get(timeout=20))
        reader = gevent.spawn(link.read, 1)
        gevent.sleep(0)  # It waits on Redis now.
        link.close()
        assert reader.get(timeout=20) == []


def test_a_slot_may_move_while_it_is_used(redis_cluster, queues):
    one, _, other = queues
    with linked_broker(redis_cluster.url, plan(one)) as linked:
        linked.publish(outgoing(b"1", routing_key=one))
        link = linked.link()
        held = read(link, 1)
        moving = redis_cluster.move(one, redis_cluster.owner(other))
        next(moving)
        next(moving)
        # The keys are there already, and the cluster does not say so yet.
        linked.publish(outgoing(b"2", routing_key=one))
        list(moving)
        linked.publish(outgoing(b"3", routing_key=one))
        link.ack(held)
        with pytest.raises(BrokerUnavailable, match="is on another node now"):
            link.read(1)
        assert link.closed
        link.close()
        second = linked.link()
        assert bodies(read(second, 2)) == [b"2", b"3"]
        list(redis_cluster.move(one, redis_cluster.owner(queues[1])))
        second.close()
        assert linked.depth(one) == 2


def test_bindings_may_move_too(redis_cluster, queues):
    key = "_qconsume.binding.shop"
    with linked_broker(redis_cluster.url, *plans(queues)) as linked:
        linked.publish(outgoing(routing_key="order.new"))
        there = redis_cluster.owner(key)
        other = next(node for node in redis_cluster.masters() if node is not there)
        list(redis_cluster.move(key, other))
        assert linked.broker.stale_bindings() == []
        linked.publish(outgoing(routing_key="order.new"))
        assert [linked.depth(name) for name in queues] == [2, 2, 2]


def test_a_slot_that_no_node_has_is_said_to_be_missing(redis_cluster, queues):
    slot = key_slot(queues[1].encode())
    with linked_broker(redis_cluster.url, plan(queues[1])) as linked:
        redis_cluster.unassign(slot)
        try:
            error = linked.broker.publish([outgoing(routing_key=queues[1])], 0.3)[0]
        finally:
            redis_cluster.assign(slot)
        assert isinstance(error, BrokerUnavailable)
        assert f"No node of the Redis Cluster has the slot {slot}" in str(error)


def test_a_node_that_is_gone_keeps_its_queues_only(redis_cluster, queues):
    with linked_broker(redis_cluster.url, *plans(queues)) as linked:
        linked.publish(outgoing(b"1", routing_key="order.new"))
        gone = redis_cluster.owner(queues[2])
        gone.kill()
        error = linked.broker.publish([outgoing(b"2", routing_key="order.new")], 1.0)[0]
        assert isinstance(error, BrokerUnavailable)
        # It was tried several times, and what arrived arrived once.
        assert [linked.depth(name) for name in queues[:2]] == [2, 2]
        gone.start()
        wait_for(lambda: gone.knows(4), timeout=10)
        assert linked.depth(queues[2]) == 1
        linked.publish(outgoing(b"3", routing_key="order.new"))


def test_a_replica_takes_over_and_consuming_goes_on(redis_cluster, queues):
    first = redis_cluster.nodes[0]
    replicated = first if first in redis_cluster.masters() else redis_cluster.nodes[3]
    one = redis_cluster.queue_on(replicated)
    with linked_broker(redis_cluster.url, plan(one)) as linked:
        sent = [b"%d" % number for number in range(10)]
        linked.publish(*(outgoing(body, routing_key=one) for body in sent))
        link = linked.link()
        link.ack(read(link, 3))
        held = read(link, 3)
        assert replicated.command("WAIT", 1, 5_000) == 1
        replicated.kill()
        with pytest.raises(BrokerUnavailable):
            link.ack(held)
        link.close()
        later = linked.broker.publish([outgoing(b"later", routing_key=one)], 20.0)
        assert later == [None]
        assert bodies(read(linked.link(), 8)) == [*sent[3:], b"later"]


def test_a_database_is_refused():
    with pytest.raises(ConfigurationError, match="has only the first"):
        opened("redis-streams+cluster://localhost/1")


def test_lists_are_refused():
    with pytest.raises(ConfigurationError, match=r"Use 'redis-streams\+cluster://'"):
        opened("redis+cluster://localhost")


def test_a_server_that_is_no_cluster_is_said_to_be_none(redis_server):
    broker = opened(f"redis-streams+cluster://127.0.0.1:{redis_server.port}")
    with pytest.raises(BrokerError, match="cluster support disabled"):
        broker.depth("billing")
    broker.close()


def opened(url):
    return open_broker(settings(url), Topology("shop", ()))
