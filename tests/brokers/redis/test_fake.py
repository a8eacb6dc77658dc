"""Publishing and dead letters over fakeredis, where no server is needed to tell.

Reading is proved on a real Redis only: fakeredis does not wait in ``XREADGROUP BLOCK``,
and gives a script no text of the error that says that there is no group.
"""

from __future__ import annotations

import contextlib
import json

import fakeredis
import pytest
from redis.exceptions import ResponseError

from flask_qconsume.broker import headers
from flask_qconsume.broker.group_commit import GroupCommit
from flask_qconsume.broker.topology import Topology
from flask_qconsume.brokers.redis.broker import RedisBroker
from flask_qconsume.brokers.redis.errors import translate_error
from flask_qconsume.brokers.redis.server import Server
from flask_qconsume.brokers.redis.shared import Shared
from flask_qconsume.brokers.redis_streams import RedisStreams
from flask_qconsume.brokers.redis_streams.entries import META
from flask_qconsume.brokers.redis_streams.entries import encode_entry
from flask_qconsume.brokers.redis_streams.keys import StreamLayout
from flask_qconsume.errors import TopologyMismatch
from flask_qconsume.errors import Unroutable
from flask_qconsume.message import Message

from .tools import outgoing
from .tools import plan
from .tools import settings


class Fake(Server):
    """A Redis in this process."""

    def __init__(self) -> None:
        self.client = fakeredis.FakeRedis()

    def run(self, calls, timeout=None):
        return [self._ran(call.script.source, *call.arguments) for call in calls]

    publish = run

    def send_commands(self, commands, timeout=None, near=""):
        return [self.client.execute_command(*command) for command in commands]

    def check_replicas(self, timeout=None):
        pass  # It has none.

    def group_commit(self):
        return GroupCommit(1)

    def close(self):
        self.client.close()

    def _ran(self, *arguments):
        try:
            return self.client.eval(*arguments)
        except ResponseError as error:
            return translate_error(error)


class Streams(RedisStreams):
    def __init__(self, server, *plans):
        given = settings("redis-streams://nowhere")
        shared = Shared(given, StreamLayout(), server)
        RedisBroker.__init__(self, given, Topology("shop", plans), shared)


@pytest.fixture
def server():
    with contextlib.closing(Fake()) as made:
        yield made


@pytest.fixture
def broker(server):
    both = [plan("billing", "order.#"), plan("mail", "order.created")]
    return Streams(server, *both)


def send(broker, *messages):
    return broker.publish(messages, 5.0)


def test_each_queue_that_is_bound_gets_its_copy(broker, server):
    sent = outgoing(b"1", routing_key="order.created", headers={"a": 1}, priority=4)
    assert send(broker, sent, outgoing(b"2", routing_key="order")) == [None, None]
    assert (broker.depth("billing"), broker.depth("mail")) == (2, 1)
    ((_, fields),) = server.client.xrange("{mail}.priority.3")
    assert fields[b"body"] == b"1"
    assert json.loads(fields[META.encode()])["headers"]["a"] == 1


def test_a_message_without_a_bound_queue_is_an_error(broker):
    (error,) = send(broker, outgoing(routing_key="nobody"))
    assert isinstance(error, Unroutable)
    assert send(broker, outgoing(routing_key="nobody", mandatory=False)) == [None]


def test_what_is_delayed_lies_beside_the_stream(broker, server):
    send(broker, outgoing(b"1", routing_key="order.created", delay=60.0))
    assert server.client.zcard("{billing}.delayed") == 1
    assert server.client.zcard("{mail}.delayed") == 1
    assert broker.depth("billing") == 0


def test_a_message_is_in_all_of_its_queues_or_in_none(broker, server):
    broker.declare()
    server.client.set("mail", "somebody else's")
    (error,) = send(broker, outgoing(routing_key="order.created"))
    assert isinstance(error, TopologyMismatch)
    assert broker.depth("billing") == 0


def test_dead_letters_are_listed_and_replayed(broker, server):
    message = Message(raw=b"1", queue="billing", id="id-1")
    written = headers.make_dead_letter_headers(
        message, "bill", "billing", "broken", None, 1.0
    )
    meta = {"message_id": "id-1", "headers": written}
    entry = encode_entry(meta, b"1", exchange="", routing_key="billing")
    server.client.zadd("{billing}.dead", {entry.pack(0): 1e10})
    letters = broker.dead_letters(broker.topology.queue("billing"))
    assert [letter.message.id for letter in letters] == ["id-1"]
    assert letters.take(lambda letter: True, replay=True) == 1
    assert (letters.count(), broker.depth("billing")) == (0, 1)
