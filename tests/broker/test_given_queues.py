"""Options of given queues are kept or refused, and never dropped silently."""

from __future__ import annotations

import typing as t

import flask
import gevent
import pytest
from gevent.event import Event
from kombu import Exchange
from kombu import Queue
from kombu import binding

from flask_qconsume import QConsume
from flask_qconsume import UnsupportedByBroker
from flask_qconsume.broker import headers
from flask_qconsume.broker.capabilities import Capabilities
from flask_qconsume.broker.checks import find_unsupported
from flask_qconsume.broker.given_queues import TRAITS
from flask_qconsume.broker.given_queues import find_traits
from flask_qconsume.broker.given_queues import find_unsupported_traits
from flask_qconsume.broker.given_queues import list_effects
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.brokers.kafka.capabilities import CAPABILITIES as KAFKA
from flask_qconsume.brokers.memory.capabilities import CAPABILITIES as MEMORY
from flask_qconsume.brokers.rabbitmq import RabbitMQ
from flask_qconsume.brokers.rabbitmq.capabilities import CLASSIC
from flask_qconsume.brokers.rabbitmq.capabilities import QUORUM
from flask_qconsume.brokers.redis_lists.capabilities import CAPABILITIES as LISTS
from flask_qconsume.brokers.redis_streams.capabilities import CAPABILITIES as STREAMS
from flask_qconsume.errors import PublishRefused
from flask_qconsume.running.worker import Worker

from ..brokers.rabbitmq.rabbit import make_order
from ..brokers.rabbitmq.rabbit import make_plan
from ..brokers.rabbitmq.rabbit import open_broker
from ..brokers.rabbitmq.rabbit import open_link
from ..brokers.rabbitmq.rabbit import take
from ..brokers.rabbitmq.rabbit import take_one
from ..servers import Vhost
from ..waiting import wait_for

OTHERS = (LISTS, STREAMS, KAFKA, MEMORY)


def queue(*, arguments: dict[str, t.Any] | None = None, **options: t.Any) -> Queue:
    return Queue("theirs", queue_arguments=arguments, **options)


QUORUM_TYPE = {"x-queue-type": "quorum"}

#: Part of a name or effect, options that RabbitMQ keeps, and whether all brokers do.
KEPT: list[tuple[str, dict[str, t.Any], bool]] = [
    ("'exclusive'", {"exclusive": True}, False),
    ("'auto_delete'", {"auto_delete": True}, False),
    ("'durable=False'", {"durable": False}, True),
    (
        "'x-single-active-consumer'",
        {"arguments": {"x-single-active-consumer": True}},
        False,
    ),
    ("'x-priority'", {"consumer_arguments": {"x-priority": 5}}, False),
    (
        "other consumer arguments",
        {"consumer_arguments": {"x-cancel-on-ha-failover": True}},
        False,
    ),
    ("'x-message-ttl'", {"message_ttl": 60}, False),
    ("'x-message-ttl'", {"arguments": {"x-message-ttl": 60_000}}, False),
    ("'x-expires'", {"expires": 60}, False),
    ("removes its oldest", {"max_length": 9}, False),
    ("removes its oldest", {"max_length_bytes": 9_000}, False),
    (
        "queue refuses new messages",
        {"max_length": 9, "arguments": {"x-overflow": "reject-publish"}},
        False,
    ),
    (
        "queue refuses new messages",
        {"max_length": 9, "arguments": {"x-overflow": "reject-publish-dlx"}},
        False,
    ),
    (
        "after this number of deliveries",
        {"arguments": {**QUORUM_TYPE, "x-delivery-limit": 7}},
        False,
    ),
    ("after 20 deliveries", {"arguments": QUORUM_TYPE}, True),
    (
        "'x-dead-letter-exchange'",
        {"arguments": {"x-dead-letter-exchange": "amq.fanout"}},
        False,
    ),
    ("'max_priority'", {"max_priority": 9}, True),
    ("how it is stored", {"arguments": {"x-queue-mode": "lazy"}}, True),
    (
        "neither 'direct' nor 'topic'",
        {"exchange": Exchange("amq.fanout", "fanout")},
        False,
    ),
    (
        "arguments of bindings",
        {
            "bindings": [
                binding(Exchange("events", "topic"), "a", arguments={"x-match": "any"})
            ]
        },
        False,
    ),
    (
        "arguments of exchanges",
        {
            "exchange": Exchange(
                "theirs", "topic", arguments={"alternate-exchange": "amq.fanout"}
            )
        },
        False,
    ),
    ("'on_declared'", {"on_declared": lambda *answer: None}, False),
    ("arguments of the broker's plugins", {"arguments": {"x-their-own": 1}}, False),
]
IDS = [f"{name}-{n}" for n, (name, _, _) in enumerate(KEPT)]

#: Options that are refused on every broker.
REFUSED: list[tuple[str, dict[str, t.Any]]] = [
    ("stream", {"arguments": {"x-queue-type": "stream"}}),
    ("'no_ack'", {"no_ack": True}),
    ("quorum", {"arguments": QUORUM_TYPE, "exclusive": True}),
    ("quorum", {"arguments": QUORUM_TYPE, "auto_delete": True}),
    ("quorum", {"arguments": QUORUM_TYPE, "durable": False}),
]


@pytest.mark.parametrize(("name", "options", "everywhere"), KEPT, ids=IDS)
def test_what_rabbitmq_keeps_is_refused_elsewhere(
    name: str, options: dict[str, t.Any], everywhere: bool
) -> None:
    given = queue(**options)
    for record in (QUORUM, CLASSIC):
        assert list(find_unsupported_traits(given, record)) == []
        assert any(name in effect for effect in list_effects(given, record))
    for record in OTHERS:
        assert list_effects(given, record) == []
        problems = list(find_unsupported_traits(given, record))
        assert bool(problems) is not everywhere
        assert all(f"which {record.broker} does not know" in one for one in problems)


@pytest.mark.parametrize("record", [QUORUM, CLASSIC, *OTHERS])
@pytest.mark.parametrize(("name", "options"), REFUSED)
def test_what_no_consumer_can_have_is_refused(
    name: str, options: dict[str, t.Any], record: Capabilities
) -> None:
    assert any(
        name in problem for problem in find_unsupported_traits(queue(**options), record)
    )


def test_every_row_is_tested() -> None:
    options = [option for _, option, _ in KEPT] + [option for _, option in REFUSED]
    found = {trait.name for one in options for trait in find_traits(queue(**one))}
    assert found == {trait.name for trait in TRAITS}


@pytest.mark.parametrize("record", [QUORUM, CLASSIC, *OTHERS])
def test_a_plain_queue_has_nothing_to_tell(record: Capabilities) -> None:
    given = queue(exchange=Exchange("theirs", "topic"), routing_key="a")
    assert (
        list(find_unsupported_traits(given, record))
        == list_effects(given, record)
        == []
    )
    assert (
        list(find_unsupported_traits(None, record)) == list_effects(None, record) == []
    )


def app_of(url: str, given: Queue) -> flask.Flask:
    app = flask.Flask(__name__)
    app.config["QCONSUME_BROKER_URL"] = url
    QConsume(app).add_consumer(given, lambda body: None, name="read")
    return app


def test_a_worker_refuses_and_warns(
    rabbitmq_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(app_of(rabbitmq_url, queue(arguments={"x-queue-type": "stream"})))
    with pytest.raises(UnsupportedByBroker, match="'read' has 'x-queue-type'"):
        worker.start()
    elsewhere = Worker(app_of("memory://", queue(message_ttl=5)))
    with pytest.raises(UnsupportedByBroker, match="which memory does not know"):
        elsewhere.start()
    warned = Worker(app_of(rabbitmq_url, queue(message_ttl=5)))
    warned.start()
    assert warned.stop()
    assert "read: its kombu.Queue has 'x-message-ttl'" in caplog.text


def retried(broker: RabbitMQ, link: t.Any, delivery: t.Any) -> None:
    changed = headers.make_retry_headers(delivery.message, 2)
    assert link.forward([Forward(delivery, Lane.MAIN, changed, delay=0.1)]) == [None]


@pytest.mark.parametrize(
    "options",
    [options for name, options, _ in KEPT if "bindings" not in name],
    ids=[one for one in IDS if "bindings" not in one],
)
def test_both_lanes_consume_it(rabbitmq_url: str, options: dict[str, t.Any]) -> None:
    """Alone on the broker, and retried and suspected messages arrive."""
    plan = make_plan("theirs", given=queue(**options))
    with (
        open_broker(rabbitmq_url, plan) as broker,
        open_link(broker) as main,
        open_link(broker, Lane.SUSPECTS) as suspects,
    ):
        assert broker.publish([make_order(1, "theirs", exchange="")], 20) == [None]
        retried(broker, main, take_one(main))
        again = take_one(main)
        assert again.message.attempt == 2
        changed = headers.make_suspect_headers(again.message, 0, 1.0)
        assert main.forward([Forward(again, Lane.SUSPECTS, changed)]) == [None]
        suspect = take_one(suspects)
        retried(broker, suspects, suspect)
        main.ack([take_one(main)])


@pytest.mark.parametrize("options", [{"exclusive": True}, {"auto_delete": True}])
def test_a_queue_that_goes_with_its_consumer_is_ready_and_stopped_cleanly(
    rabbitmq_url: str, options: dict[str, t.Any]
) -> None:
    """The queue is deleted while a message is in hand."""
    app, begun, ended = flask.Flask(__name__), Event(), Event()
    app.config["QCONSUME_BROKER_URL"] = rabbitmq_url
    qconsume = QConsume(app)

    @qconsume.consumer(queue(**options), name="read")
    def read(body: t.Any) -> None:
        begun.set()
        ended.wait(30)

    worker = Worker(app)
    worker.start()
    wait_for(lambda: worker.ready, 20)
    app.extensions["qconsume"].publish("theirs", 1, exchange="")
    assert begun.wait(20)
    stopping = gevent.spawn(worker.stop)
    wait_for(lambda: worker.stopping.is_set())
    ended.set()
    assert stopping.get(timeout=30) is True


def test_one_of_two_gets_the_messages_of_a_single_active_consumer(
    rabbitmq_url: str,
) -> None:
    """The waiting consumer is not reported as stalled."""
    arguments = {**QUORUM_TYPE, "x-single-active-consumer": True}
    plan = make_plan("theirs", given=queue(arguments=arguments))
    with open_broker(rabbitmq_url, plan) as broker, open_link(broker) as first:
        assert first.may_starve
        with open_link(broker) as second, open_link(broker, Lane.SUSPECTS) as lane:
            assert not lane.may_starve
            messages = [make_order(n, "theirs", exchange="") for n in range(3)]
            assert broker.publish(messages, 20) == [None] * 3
            first.ack(take(first, 3))
            first.close()
            assert broker.publish(messages[:1], 20) == [None]
            second.ack([take_one(second)])


def test_a_priority_of_the_consumer_is_not_that_of_its_suspects(
    rabbitmq_vhost: Vhost,
) -> None:
    given = queue(consumer_arguments={"x-priority": 7})
    plan = make_plan("theirs", given=given)
    with (
        open_broker(rabbitmq_vhost.url, plan) as broker,
        open_link(broker),
        open_link(broker, Lane.SUSPECTS),
    ):
        rows = rabbitmq_vhost.server.ctl_json(
            *("list_consumers", "--vhost", rabbitmq_vhost.name),
            *("queue_name", "arguments"),
        )
    found = {row["queue_name"]: row["arguments"] for row in rows}
    assert "x-priority" in str(found["theirs"])
    assert "x-priority" not in str(found["theirs.suspects"])


def test_a_full_queue_takes_its_retries_once_the_broker_tries_again(
    own_rabbitmq_vhost: Vhost,
) -> None:
    """They are tried again after three minutes, or as the broker's setting says."""
    vhost, name = own_rabbitmq_vhost, "dead_letter_worker_publisher_confirm_timeout"
    bound = {"x-max-length": 1, "x-overflow": "reject-publish"}
    plan = make_plan("theirs", given=queue(arguments=bound))
    messages = [make_order(n, "theirs", exchange="") for n in range(3)]
    # It is a setting of the whole node, which the other tests share.
    vhost.server.evaluate(f"application:set_env(rabbit, {name}, 500)")
    with open_broker(vhost.url, plan) as broker:
        with open_link(broker, prefetch=1) as link:
            assert broker.publish(messages[:1], 20) == [None]
            delivery = take_one(link)
            assert broker.publish(messages[1:2], 20) == [None]
            (refused,) = broker.publish(messages[2:], 20)
            assert isinstance(refused, PublishRefused)
            link.pause()
            retried(broker, link, delivery)
        # Messages that are due and refused do not count as ready.
        wait_for(lambda: counts(vhost, "shop.wait.1") == (1, 0), 30)
        with open_link(broker) as link:
            found = take(link, 2)
            assert [each.message.attempt for each in found] == [1, 2]
            link.ack(found)


def counts(vhost: Vhost, name: str) -> tuple[int, int]:
    row = vhost.queues()[name]
    return row["messages"], row["messages_ready"]


def test_a_maximum_of_priorities_by_an_argument_counts_as_well() -> None:
    app = app_of("memory://", queue(arguments={"x-max-priority": 9, **QUORUM_TYPE}))
    consumers = list(app.extensions["qconsume"].consumers.values())
    (told,) = find_unsupported(consumers, QUORUM)
    assert "has a 'max_priority', which cannot be kept" in told
