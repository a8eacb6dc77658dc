"""Refusals of RabbitMQ: the error that each becomes, and its advice."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import socket
import typing as t

import amqp
import gevent
import pytest
from amqp.exceptions import error_for_code
from gevent.server import StreamServer
from kombu import Exchange
from kombu import Queue

from flask_qconsume.broker.link import Lane
from flask_qconsume.brokers.rabbitmq.errors import lacks_exchange
from flask_qconsume.brokers.rabbitmq.errors import translate_error
from flask_qconsume.errors import BrokerError
from flask_qconsume.errors import BrokerRefused
from flask_qconsume.errors import BrokerUnavailable
from flask_qconsume.errors import PublishRefused
from flask_qconsume.errors import TopologyMismatch
from flask_qconsume.errors import Unroutable
from flask_qconsume.errors import UnsupportedByBroker

from ...servers import RabbitMQ as Server
from ...servers import Vhost
from ...servers.ports import free_port
from .rabbit import QUEUE
from .rabbit import make_order
from .rabbit import make_plan
from .rabbit import open_broker
from .rabbit import open_link
from .rabbit import publish_orders
from .rabbit import raw_channel
from .rabbit import take

#: Names that say what other situations say.
MISLEADING = "limit (3) is reached"


@contextlib.contextmanager
def user(server: Server, name: str) -> t.Iterator[None]:
    """A user without any permission."""
    server.ctl("add_user", name, "pw")
    try:
        yield
    finally:
        server.ctl("delete_user", name)


def url_of(server: Server, vhost: str, name: str = "guest", password: str = "") -> str:
    quoted = vhost.replace(" ", "%20")
    login = f"{name.replace(' ', '%20')}:{password or name}"
    return f"amqp://{login}@127.0.0.1:{server.port}/{quoted}"


@contextlib.contextmanager
def told(kind: type[BrokerError], words: str) -> t.Iterator[None]:
    with pytest.raises(kind, match=words), gevent.Timeout(60):
        yield


def refused(url: str, **config: t.Any) -> BrokerError:
    """Return the error of declaring; publishing and a link must fail alike."""
    with open_broker(url, publish_timeout=0.5, **config) as broker:
        with pytest.raises(BrokerError) as declared:
            broker.declare()
        with pytest.raises(BrokerError) as consumed, open_link(broker):
            pass
        # An outage is waited for, and a refusal is reported as soon as it comes.
        timeout = 0.5 if type(declared.value) is BrokerUnavailable else 20.0
        (unpublished,) = broker.publish([make_order()], timeout)
    assert type(declared.value) is type(consumed.value) is type(unpublished)
    return declared.value


@pytest.mark.parametrize("name", ["reader", "limited", MISLEADING])
def test_a_user_without_permission_is_refused_whatever_its_name(
    rabbitmq_vhost: Vhost, name: str
) -> None:
    server = rabbitmq_vhost.server
    with user(server, name):
        error = refused(url_of(server, rabbitmq_vhost.name, name, "pw"))
    assert type(error) is BrokerRefused
    assert "Give the user permissions in the virtual host" in str(error)


def test_a_virtual_host_of_a_misleading_name_is_refused(
    rabbitmq: Server,
) -> None:
    error = refused(url_of(rabbitmq, f"no user {MISLEADING}"))
    assert type(error) is BrokerRefused
    assert "Create the virtual host" in str(error)
    with rabbitmq.vhost(f"a vhost {MISLEADING}") as vhost, vhost.permissions(None):
        error = refused(url_of(rabbitmq, vhost.name))
    assert type(error) is BrokerRefused
    assert "Give the user permissions in the virtual host" in str(error)


def test_a_wrong_password_is_refused(rabbitmq_vhost: Vhost) -> None:
    error = refused(url_of(rabbitmq_vhost.server, rabbitmq_vhost.name, "guest", "no"))
    assert type(error) is BrokerRefused
    assert "Check the user and the password" in str(error)


@pytest.mark.parametrize("order", [1, -1])
def test_a_refusal_counts_although_another_node_is_away(
    rabbitmq_vhost: Vhost, order: int
) -> None:
    wrong = url_of(rabbitmq_vhost.server, rabbitmq_vhost.name, "guest", "no")
    nodes = [wrong, f"amqp://guest:no@127.0.0.1:{free_port()}"]
    assert type(refused(";".join(nodes[::order]))) is BrokerRefused


def test_a_login_method_that_the_broker_does_not_offer_is_refused(
    rabbitmq_url: str,
) -> None:
    options = {"login_method": "EXTERNAL"}
    error = refused(rabbitmq_url, transport_options=options)
    assert type(error) is BrokerRefused
    assert "login_method" in str(error)


def test_a_reached_limit_of_connections_is_waited_for(rabbitmq_vhost: Vhost) -> None:
    server, limits = rabbitmq_vhost.server, '{"max-connections": 0}'
    server.ctl("set_vhost_limits", "-p", rabbitmq_vhost.name, limits)
    error = refused(rabbitmq_vhost.url)
    assert type(error) is BrokerUnavailable
    assert "raise the limit" in str(error)
    server.ctl("clear_vhost_limits", "-p", rabbitmq_vhost.name)
    with user(server, "limited"):
        server.ctl("set_permissions", "-p", rabbitmq_vhost.name, "limited", *[".*"] * 3)
        server.ctl("set_user_limits", "limited", limits)
        error = refused(url_of(server, rabbitmq_vhost.name, "limited", "pw"))
        assert type(error) is BrokerUnavailable
        assert "raise the limit" in str(error)
        limits = '{"max-connections": 9, "max-channels": 0}'
        server.ctl("set_user_limits", "limited", limits)
        error = refused(url_of(server, rabbitmq_vhost.name, "limited", "pw"))
        assert type(error) is BrokerUnavailable
        assert "raise the limit" in str(error)


def test_a_reached_limit_of_queues_is_refused(rabbitmq_vhost: Vhost) -> None:
    server = rabbitmq_vhost.server
    server.ctl("set_vhost_limits", "-p", rabbitmq_vhost.name, '{"max-queues": 0}')
    error = refused(rabbitmq_vhost.url)
    assert type(error) is BrokerRefused
    assert "Delete queues that are not needed any more" in str(error)


def test_a_virtual_host_that_is_down_is_waited_for(rabbitmq_vhost: Vhost) -> None:
    rabbitmq_vhost.server.evaluate(
        f'rabbit_vhost_sup_sup:stop_and_delete_vhost(<<"{rabbitmq_vhost.name}">>)'
    )
    error = refused(rabbitmq_vhost.url)
    assert type(error) is BrokerUnavailable
    assert "restart_vhost" in str(error)
    rabbitmq_vhost.server.ctl("restart_vhost", "--vhost", rabbitmq_vhost.name)
    with open_broker(rabbitmq_vhost.url) as broker:
        broker.declare()


def test_a_broker_in_maintenance_is_waited_for(own_rabbitmq: Server) -> None:
    with open_broker(own_rabbitmq.url) as broker:
        broker.declare()
        own_rabbitmq.evaluate("rabbit_maintenance:drain()")
        with pytest.raises(BrokerUnavailable), open_link(broker):
            pass
        own_rabbitmq.evaluate("rabbit_maintenance:revive()")
        publish_orders(broker)


@pytest.mark.parametrize("said", [b"HTTP/1.1 503 No\r\n\r\n", b"AMQP\x03\x01\x00\x00"])
def test_what_does_not_speak_amqp_is_told(said: bytes) -> None:
    """For example a load balancer without a node behind it: we wait for a node."""

    def answer(client: socket.socket, address: object) -> None:
        client.sendall(said)
        client.close()

    server = StreamServer(("127.0.0.1", 0), answer)
    server.start()
    try:
        url = f"amqp://127.0.0.1:{server.server_port}"
        with open_broker(url) as broker, told(BrokerUnavailable, "does not speak AMQP"):
            broker.declare()
    finally:
        server.stop()


@pytest.mark.parametrize("what", ["exchange", "queue"])
def test_a_permission_that_is_missing_is_refused(
    rabbitmq_vhost: Vhost, what: str
) -> None:
    pattern = "^nothing$" if what == "exchange" else f"^{'shop'}$"
    rabbitmq_vhost.server.permit(rabbitmq_vhost.name, configure=pattern)
    error = refused(rabbitmq_vhost.url)
    assert type(error) is BrokerRefused
    assert "Give the user this permission" in str(error)


def test_a_queue_that_is_missing_is_a_mismatch(rabbitmq_url: str) -> None:
    with open_broker(rabbitmq_url, declare="never") as broker:
        with pytest.raises(TopologyMismatch, match="flask qconsume declare"):
            broker.connect(broker.topology.queues[0], Lane.MAIN, 1)
        assert broker.depth(QUEUE) == 0


def test_a_queue_that_the_broker_cannot_reach_is_neither_missing_nor_empty(
    rabbitmq_vhost: Vhost,
) -> None:
    """A classic queue whose process has crashed more often than the broker allows."""
    plan = make_plan(type="classic")
    with open_broker(rabbitmq_vhost.url, plan, queue_type="classic") as broker:
        broker.declare()
        publish_orders(broker)
        name = f'rabbit_misc:r(<<"{rabbitmq_vhost.name}">>, queue, <<"{QUEUE}">>)'
        rabbitmq_vhost.server.evaluate(
            "rabbit_misc:execute_mnesia_transaction(fun() -> rabbit_amqqueue:update("
            f"{name}, fun(Q) -> amqqueue:set_state(Q, crashed) end) end)"
        )
        with pytest.raises(BrokerUnavailable, match="crashed"):
            broker.depth(QUEUE)
        with pytest.raises(BrokerUnavailable, match="cannot reach it now"):
            broker.connect(plan, Lane.MAIN, 1)
        with pytest.raises(BrokerUnavailable, match="cannot reach it now"):
            broker.declare()


def test_a_queue_of_another_consumer_alone_is_waited_for(rabbitmq_url: str) -> None:
    plan = make_plan(type="classic")
    with open_broker(rabbitmq_url, plan, queue_type="classic") as broker:
        broker.declare()
        with raw_channel(rabbitmq_url) as channel:
            channel.basic_consume(QUEUE, exclusive=True)
            with pytest.raises(BrokerUnavailable, match="to itself"), open_link(broker):
                pass
        with open_link(broker):
            pass


def test_a_queue_of_another_connection_alone_is_waited_for(rabbitmq_url: str) -> None:
    given = Queue("theirs", no_declare=True)
    plan = make_plan("theirs", given=given)
    with (
        open_broker(rabbitmq_url, plan) as broker,
        raw_channel(rabbitmq_url) as channel,
    ):
        channel.queue_declare("theirs", exclusive=True)
        with pytest.raises(BrokerUnavailable, match="as exclusive"), open_link(broker):
            pass


def test_an_argument_that_the_broker_does_not_know_is_unsupported(
    rabbitmq_url: str,
) -> None:
    given = Queue("theirs", queue_arguments={"x-max-length": -5})
    plan = make_plan("theirs", given=given)
    with (
        open_broker(rabbitmq_url, plan) as broker,
        told(UnsupportedByBroker, "kombu.Queue"),
    ):
        broker.declare()


def test_a_type_of_exchange_that_the_broker_does_not_know_is_unsupported(
    rabbitmq_url: str,
) -> None:
    given = Queue("theirs", Exchange("theirs", type="x-delayed-message"))
    plan = make_plan("theirs", given=given)
    with open_broker(rabbitmq_url, plan) as broker, told(UnsupportedByBroker, "plugin"):
        broker.declare()


def test_a_message_in_hand_for_too_long_says_what_to_do(
    rabbitmq_vhost: Vhost,
) -> None:
    with (
        rabbitmq_vhost.server.consumer_timeout(1.0),
        open_broker(rabbitmq_vhost.url) as broker,
    ):
        publish_orders(broker)
        with open_link(broker) as link:
            take(link)
            with told(BrokerUnavailable, "consumer_timeout"):
                link.read(1)


def test_a_connection_that_an_operator_closes_is_lost(rabbitmq_vhost: Vhost) -> None:
    with open_broker(rabbitmq_vhost.url) as broker, open_link(broker) as link:
        rabbitmq_vhost.close_connections()
        with told(BrokerUnavailable, "an operator closed"):
            link.read(1)


def test_a_virtual_host_that_is_deleted_is_lost_and_then_refused(
    rabbitmq: Server,
) -> None:
    with rabbitmq.vhost() as vhost:
        with open_broker(vhost.url) as broker, open_link(broker) as link:
            rabbitmq.delete_vhost(vhost.name)
            with pytest.raises(BrokerUnavailable), gevent.Timeout(60):
                link.read(1)
            with pytest.raises(BrokerRefused, match="Create the virtual host"):
                broker.connect(broker.topology.queues[0], Lane.MAIN, 1)
        rabbitmq.add_vhost(vhost.name)


def test_an_exchange_that_is_missing_is_told_from_one_of_a_similar_name(
    rabbitmq: Server,
) -> None:
    """The broker's text also holds the name of the virtual host."""
    with rabbitmq.vhost("shops") as vhost, open_broker(vhost.url) as broker:
        broker.declare()
        with raw_channel(vhost.url) as channel:
            channel.exchange_declare("shops", "fanout", auto_delete=False)
            channel.queue_bind(QUEUE, "shops")
        messages = [make_order(exchange="shops"), make_order(exchange="missing")]
        kept, lost = broker.publish(messages, 20)
        assert kept is None
        assert isinstance(lost, Unroutable)


def test_a_missing_exchange_with_the_longest_name_is_told(rabbitmq_url: str) -> None:
    with open_broker(rabbitmq_url) as broker:
        (error,) = broker.publish([make_order(exchange="x" * 255)], 20)
    assert isinstance(error, Unroutable)


def test_a_shortened_name_is_known() -> None:
    error = amqp.exceptions.NotFound("NOT_FOUND - no exchange 'aaa...")
    assert lacks_exchange(error, "aaaa")
    assert not lacks_exchange(error, "aa")
    assert not lacks_exchange(error, "b")


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (
            404,
            "NOT_FOUND - home node 'a@b' of durable queue 'no queue' in vhost '/'"
            " is down or inaccessible",
            BrokerUnavailable,
        ),
        (
            404,
            "NOT_FOUND - failed to perform operation on queue 'q' in vhost '/' due to"
            " timeout",
            BrokerUnavailable,
        ),
        (404, "NOT_FOUND - no queue 'q' in vhost '/'", TopologyMismatch),
        (
            403,
            "ACCESS_REFUSED - access to queue 'in exclusive use' in vhost 'v' refused"
            " for user 'in exclusive use'",
            BrokerRefused,
        ),
        (
            506,
            "RESOURCE_ERROR - Stream coordinator unavailable for queue 's'",
            BrokerUnavailable,
        ),
        (541, "INTERNAL_ERROR", BrokerUnavailable),
        (
            530,
            "NOT_ALLOWED - connection refused: node connection limit (7) is reached",
            BrokerUnavailable,
        ),
        (
            530,
            "NOT_ALLOWED - negotiated channel_max = 9 is higher than the maximum"
            " allowed value (2)",
            BrokerRefused,
        ),
        (540, "NOT_IMPLEMENTED - immediate=true", UnsupportedByBroker),
    ],
)
def test_what_one_node_alone_cannot_be_brought_to_say(
    code: int, text: str, kind: type[BrokerError]
) -> None:
    error = error_for_code(code, text, (50, 10), amqp.exceptions.ConnectionError)
    assert type(translate_error(error, "doing it")) is kind


def test_a_body_that_is_too_large_for_the_broker_is_refused(
    tmp_path: pathlib.Path, rabbitmq: Server
) -> None:
    """The message closes the channel; the messages before and after are published."""
    config = {"max_message_size": "1000"}
    with (
        Server(tmp_path / "small", config=config) as small,
        open_broker(small.url) as broker,
    ):
        large = dataclasses.replace(make_order(2), body=b"x" * 2000)
        errors = broker.publish([make_order(1), large, make_order(3)], 20)
    assert errors[::2] == [None, None]
    assert isinstance(errors[1], PublishRefused)
    assert "larger than configured max size" in str(errors[1])
