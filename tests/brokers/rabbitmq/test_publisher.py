"""The publisher: each message is confirmed or fails, from any thread or greenlet."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import textwrap
import time
import typing as t

import gevent
import pytest
from gevent import monkey

from flask_qconsume.brokers.rabbitmq import RabbitMQ
from flask_qconsume.brokers.rabbitmq.amqp import frames as frames
from flask_qconsume.brokers.rabbitmq.publish_session import PublishSession
from flask_qconsume.errors import BrokerRefused
from flask_qconsume.errors import BrokerUnavailable
from flask_qconsume.errors import PublishRefused
from flask_qconsume.errors import PublishTimeout
from flask_qconsume.errors import Unroutable
from flask_qconsume.errors import UnsupportedByBroker

from ...servers import RabbitMQ as Server
from ...servers import Vhost
from ...waiting import wait_for
from .rabbit import EXCHANGE
from .rabbit import QUEUE
from .rabbit import make_order
from .rabbit import open_broker
from .rabbit import open_link
from .rabbit import publish_orders
from .rabbit import raw_channel
from .rabbit import take
from .rabbit import take_one


@pytest.fixture
def broker(rabbitmq_url: str) -> t.Iterator[RabbitMQ]:
    with open_broker(rabbitmq_url) as made:
        yield made


def test_a_body_of_many_frames_arrives_whole(broker: RabbitMQ) -> None:
    body = bytes(range(256)) * 20_000
    big = make_order()
    assert broker.publish([type(big)(**{**vars(big), "body": body})], 30) == [None]
    with open_link(broker) as link:
        assert take_one(link).message.raw == body


def test_unroutable_messages_that_are_alike_all_fail(broker: RabbitMQ) -> None:
    same = make_order(1, "nobody", id=None)
    errors = broker.publish([same] * 20 + [make_order()], 10)
    assert [type(error) for error in errors] == [Unroutable] * 20 + [type(None)]


def test_a_full_queue_refuses(rabbitmq_url: str, broker: RabbitMQ) -> None:
    with raw_channel(rabbitmq_url) as channel:
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare("full", arguments=arguments, auto_delete=False)
    errors = broker.publish([make_order(n, "full", exchange="") for n in range(5)], 10)
    assert errors[0] is None
    assert isinstance(errors[4], PublishRefused)
    assert "'full'" in str(errors[4])


def test_a_missing_exchange_fails_its_messages_only(
    broker: RabbitMQ,
) -> None:
    messages = [
        make_order(n, exchange="gone" if n % 2 else EXCHANGE) for n in range(10)
    ]
    errors = broker.publish(messages, 10)
    kinds = [type(error) for error in errors]
    assert kinds == [type(None), Unroutable] * 5
    assert "no exchange 'gone'" in str(errors[1])
    assert broker.depth(QUEUE) >= 5


def test_a_message_that_closes_the_channel_fails_alone(
    broker: RabbitMQ,
) -> None:
    forged = make_order(5, properties={"user_id": "somebody-else"})
    messages = [make_order(n) for n in range(5)] + [
        forged,
        make_order(6),
        make_order(7),
    ]
    errors = broker.publish(messages, 20)
    assert [type(error) for error in errors] == [type(None)] * 5 + [
        PublishRefused,
        type(None),
        type(None),
    ]
    assert "user_id" in str(errors[5])
    publish_orders(broker, 1)


def test_the_apps_own_exchange_comes_back(rabbitmq_url: str, broker: RabbitMQ) -> None:
    publish_orders(broker)
    with raw_channel(rabbitmq_url) as channel:
        channel.exchange_delete(EXCHANGE)
    publish_orders(broker)


def test_headers_that_amqp_cannot_carry_are_refused(broker: RabbitMQ) -> None:
    errors = broker.publish([make_order(1, headers={"n": 2**70}), make_order(2)], 10)
    assert isinstance(errors[0], PublishRefused)
    assert errors[1] is None


def test_headers_larger_than_a_frame_are_refused(broker: RabbitMQ) -> None:
    errors = broker.publish(
        [make_order(1, headers={"x": "y" * 140_000}), make_order(2)], 10
    )
    assert isinstance(errors[0], PublishRefused)
    assert "131072" in str(errors[0])
    assert errors[1] is None


def test_what_rabbitmq_cannot_do_is_refused_before_anything_is_sent(
    broker: RabbitMQ,
) -> None:
    with pytest.raises(UnsupportedByBroker, match="Priorities are"):
        broker.publish([make_order(1), make_order(2, priority=5)], 10)
    with pytest.raises(UnsupportedByBroker, match="604800 s"):
        broker.publish([make_order(1), make_order(2, delay=604_801)], 10)
    with pytest.raises(UnsupportedByBroker, match="'elsewhere'"):
        broker.publish(
            [make_order(1), make_order(2, exchange="elsewhere", delay=1)], 10
        )
    broker.declare()
    assert broker.depth(QUEUE) == 0


def test_no_broker_at_all_is_told_at_the_time_limit() -> None:
    with open_broker("amqp://guest:secret@127.0.0.1:9/") as broker:
        began = time.monotonic()
        (error,) = broker.publish([make_order()], timeout=0.3)
    assert 0.25 < time.monotonic() - began < 3
    assert isinstance(error, BrokerUnavailable)
    assert "refused" in str(error)
    assert "secret" not in str(error)


def test_wrong_credentials_are_told_at_once(rabbitmq_url: str) -> None:
    url = rabbitmq_url.replace("guest:guest", "guest:wrong")
    with open_broker(url) as broker:
        (error,) = broker.publish([make_order()], timeout=20)
        assert isinstance(error, BrokerRefused)
        with pytest.raises(BrokerRefused, match="ACCESS_REFUSED"):
            broker.declare()


def test_an_unknown_virtual_host_is_told_at_once(rabbitmq_url: str) -> None:
    with open_broker(rabbitmq_url + "-not") as broker:
        (error,) = broker.publish([make_order()], timeout=20)
    assert isinstance(error, BrokerRefused)
    assert "virtual host" in str(error)


def test_the_next_address_of_the_url_is_tried(rabbitmq_url: str) -> None:
    with open_broker(f"amqp://guest:guest@127.0.0.1:9//;{rabbitmq_url}") as broker:
        publish_orders(broker)


def test_fifty_greenlets_publish_at_once(broker: RabbitMQ) -> None:
    def some(start: int) -> list[Exception | None]:
        return [
            error
            for number in range(start, start + 20)
            for error in broker.publish([make_order(number)], 20)
        ]

    greenlets = [gevent.spawn(some, n * 20) for n in range(50)]
    gevent.joinall(greenlets, raise_error=True)
    assert [g.value for g in greenlets] == [[None] * 20] * 50
    assert broker.depth(QUEUE) == 1000


def test_callers_that_go_on_together_keep_the_broker_busy(broker: RabbitMQ) -> None:
    publish_orders(broker)
    session = broker._publisher.get()._loop.session
    assert session is not None
    #: Messages that had been written when each caller woke.
    found: list[int] = []

    def publish_twice(number: int) -> None:
        assert broker.publish([make_order(number)], 20) == [None]
        found.append(session._sequence)
        assert broker.publish([make_order(number)], 20) == [None]

    callers = [gevent.spawn(publish_twice, number) for number in range(100)]
    with gevent.Timeout(20, AssertionError("they were not written")):
        while session._sequence < 101:
            gevent.sleep(0)
    hold_until_confirmed(session)
    gevent.joinall(callers, raise_error=True)
    # All were confirmed at once, and the first callers had written their next messages
    # before the last callers woke.
    assert found[0] == 101 < found[-1]


def hold_until_confirmed(session: PublishSession) -> None:
    """Block this thread, with its hub, until all confirmations can be read."""
    confirmed: set[int] = set()
    wait = monkey.get_original("select", "select")
    while confirmed < session.in_flight.keys():
        (readable, _, _) = wait([session._connection.sock.fileno()], [], [], 20.0)
        assert readable, f"confirmed: {sorted(confirmed)}"
        peeked = session._connection.sock.recv(65536, socket.MSG_PEEK)
        confirmed = {
            number
            for tag, multiple in confirmations(peeked)
            for number in session.in_flight
            if number == tag or (multiple and number < tag)
        }


def confirmations(data: bytes) -> t.Iterator[tuple[int, bool]]:
    at = 0
    while frames.has_frame(data, at):
        kind, _, payload = frames.parse_frame_at(data, at)
        at += len(payload) + frames.OVERHEAD
        if kind == frames.METHOD:
            yield struct.unpack(">4xQ?", payload)


def test_a_thread_of_gevents_pool_may_be_the_first_to_publish(
    broker: RabbitMQ,
) -> None:
    pool = gevent.get_hub().threadpool
    with open_link(broker) as link:
        assert pool.spawn(broker.publish, [make_order()], 10).get() == [None]
        publish_orders(broker)
        take(link, 2)


def test_a_caller_that_is_killed_harms_no_other_caller(broker: RabbitMQ) -> None:
    publish_orders(broker)
    body = b"x" * 100_000
    for _ in range(20):
        big = type(make_order())(**{**vars(make_order()), "body": body})
        caller = gevent.spawn(broker.publish, [big] * 20, 20)
        gevent.sleep(0)
        caller.kill()
    publish_orders(broker, 10)


def test_it_connects_again_after_its_connection_was_closed(
    rabbitmq_vhost: Vhost, broker: RabbitMQ
) -> None:
    for _ in range(3):
        publish_orders(broker, 2)
        rabbitmq_vhost.close_connections()
    publish_orders(broker)
    assert broker.depth(QUEUE) == 7


def test_what_was_not_confirmed_when_the_connection_broke_is_published_again(
    rabbitmq_vhost: Vhost, broker: RabbitMQ
) -> None:
    publish_orders(broker)
    messages = [make_order(number) for number in range(20_000)]
    publishing = gevent.spawn(broker.publish, messages, 60)
    while not publishing.dead:
        rabbitmq_vhost.close_connections()
    assert publishing.get() == [None] * 20_000
    with open_link(broker, prefetch=500) as link:
        seen: set[bytes] = set()
        while len(seen) < 20_000:
            deliveries = take(link)
            seen |= {delivery.message.raw for delivery in deliveries}
            link.ack(deliveries)


def test_it_publishes_over_a_restart_of_the_broker(
    own_rabbitmq: Server, own_rabbitmq_vhost: Vhost
) -> None:
    with open_broker(own_rabbitmq_vhost.url) as broker:
        publish_orders(broker)
        own_rabbitmq.kill()
        waiting = gevent.spawn(broker.publish, [make_order()], 60)
        own_rabbitmq.start()
        assert waiting.get() == [None]
        assert broker.depth(QUEUE) == 2


def test_an_alarm_of_the_broker_is_told_and_waited_for(
    own_rabbitmq: Server, own_rabbitmq_vhost: Vhost
) -> None:
    with open_broker(own_rabbitmq_vhost.url) as broker:
        publish_orders(broker)
        with own_rabbitmq.memory_alarm():
            (error,) = broker.publish([make_order()], timeout=0.5)
            assert isinstance(error, PublishTimeout)
            # The broker reports the alarm once a message was published.
            wait_for(lambda: "memory" in str(broker.publish([make_order()], 0.5)[0]))
            waiting = gevent.spawn(broker.publish, [make_order()], 60)
            gevent.sleep(0)
        assert waiting.get() == [None]


def test_closing_ends_its_threads_and_publishing_starts_them_again(
    broker: RabbitMQ,
) -> None:
    for _ in range(3):
        publish_orders(broker)
        broker.close()
    broker.close()
    publish_orders(broker)


HEAD = """
import os, sys, threading
from tests.brokers.rabbitmq.rabbit import make_broker, make_order, open_broker

def publish(broker, count=50):
    errors = [broker.publish([make_order(n)], 20)[0] for n in range(count)]
    assert errors == [None] * count, errors
"""

THREADS = """
assert "gevent" not in sys.modules or not gevent.monkey.is_module_patched("socket")
with open_broker(sys.argv[1]) as broker:
    threads = [threading.Thread(target=publish, args=[broker]) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert broker.depth("billing") == 400
assert threading.active_count() == 1, threading.enumerate()
"""

FORK = """
with open_broker(sys.argv[1]) as broker:
    publish(broker)
    child = os.fork()
    if not child:
        publish(broker)
        os._exit(0)
    publish(broker)
    assert os.waitpid(child, 0)[1] == 0
    publish(broker)
    assert broker.depth("billing") == 200
"""

EXIT = """
broker = make_broker(sys.argv[1])
publish(broker)
"""


@pytest.mark.parametrize("patched", [False, True])
@pytest.mark.parametrize(
    "script", [THREADS, FORK, EXIT], ids=["thread", "fork", "exit"]
)
def test_other_processes_publish(
    rabbitmq_url: str, broker: RabbitMQ, script: str, patched: bool
) -> None:
    if patched and script is THREADS:
        pytest.skip("threads are greenlets there, which other tests have")
    code = textwrap.dedent(HEAD + script)
    if patched:
        code = "import gevent.monkey\ngevent.monkey.patch_all()\n" + code
    else:
        code = code.replace("import os", "import gevent.monkey, os", 1)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, rabbitmq_url],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
