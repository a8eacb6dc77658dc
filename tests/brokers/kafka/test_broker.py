"""What is special about Kafka as a broker, on a real one."""

from __future__ import annotations

import os
import time
import typing as t

import gevent
import pytest
from confluent_kafka import admin as _admin
from confluent_kafka.admin import ConfigResource
from gevent.threadpool import ThreadPool
from kombu import Queue

from flask_qconsume import BrokerRefused
from flask_qconsume import BrokerUnavailable
from flask_qconsume import ConfigurationError
from flask_qconsume import PublishRefused
from flask_qconsume import PublishTimeout
from flask_qconsume import TopologyMismatch
from flask_qconsume import Unroutable
from flask_qconsume import UnsupportedByBroker
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.brokers.kafka.broker import Kafka as KafkaBroker

from ...harness.scripts import run_script
from ...harness.ticks import Ticks
from ...servers.kafka import Kafka
from ...waiting import wait_for
from .client.tools import produce
from .tools import linked_broker
from .tools import outgoing
from .tools import plan
from .tools import read


def test_declaring_makes_the_topics_with_the_partitions_asked_for(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue, topic = f"{kafka_prefix}billing", f"{kafka_prefix}order.created"
    wanted = plan(queue, topic, f"{kafka_prefix}refund.*", delays=(1.0, 4.0))
    options = {"partitions": 3, "topics": {topic: 5}}

    with linked_broker(kafka.url, wanted, transport_options=options) as linked:
        linked.broker.declare()
        linked.broker.declare()

    found = kafka.admin().list_topics(timeout=10).topics
    mine = {n: len(t.partitions) for n, t in found.items() if kafka_prefix in n}
    assert mine == {
        topic: 5,
        f"_qconsume.{queue}.retry.0": 1,
        f"_qconsume.{queue}.retry.1": 1,
        f"_qconsume.{queue}.retry.4": 1,
        f"_qconsume.{queue}.suspects": 1,
        f"_qconsume.{queue}.dead": 1,
    }


def test_topics_have_the_prefix_and_options_name_them_without(
    kafka: Kafka, kafka_prefix: str
) -> None:
    wanted = plan(f"{kafka_prefix}billing", "order.created", prefix=kafka_prefix)
    config = {
        "transport_options": {"topics": {"order.created": 3}},
        "QUEUE_PREFIX": kafka_prefix,
    }

    with linked_broker(kafka.url, wanted, **config) as linked:
        linked.broker.declare()
        assert linked.broker.publish([outgoing("order.created")], 10) == [None]
        (delivery,) = read(linked.link(), 1)

    found = kafka.admin().list_topics(timeout=10).topics
    assert len(found[f"{kafka_prefix}order.created"].partitions) == 3
    assert delivery.message.routing_key == "order.created"
    assert delivery.message.headers == {}


def test_dead_letters_are_kept_as_long_as_configured(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue), dead_letter_ttl=3_600) as linked:
        linked.broker.declare()

    topic = ConfigResource("topic", f"_qconsume.{queue}.dead")
    admin = kafka.admin()
    (future,) = admin.describe_configs([topic]).values()
    found = {name: entry.value for name, entry in future.result(10).items()}
    assert found["retention.ms"] == "3600000"
    assert set(found["cleanup.policy"].split(",")) == {"compact", "delete"}


def test_passive_says_what_is_missing_and_makes_nothing(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue), declare="passive") as linked:
        with pytest.raises(TopologyMismatch, match=f"'{queue}' is not there"):
            linked.broker.declare()
        assert not [name for name in kafka.topics() if kafka_prefix in name]
    with linked_broker(kafka.url, plan(queue)) as linked:
        linked.broker.declare()
    with linked_broker(kafka.url, plan(queue), declare="passive") as linked:
        linked.broker.declare()


def test_the_topics_of_an_existing_queue_are_never_created(
    kafka: Kafka, kafka_prefix: str
) -> None:
    given = Queue(f"{kafka_prefix}billing", routing_key=f"{kafka_prefix}theirs")
    wanted = plan(given.name, f"{kafka_prefix}theirs", given=given)
    with linked_broker(kafka.url, wanted) as linked:
        linked.broker.declare()
        assert f"{kafka_prefix}theirs" not in kafka.topics()
        assert f"_qconsume.{given.name}.dead" in kafka.topics()


def test_a_topic_that_cannot_be_made_as_asked_is_an_error(
    kafka: Kafka, kafka_prefix: str
) -> None:
    options = {"replication_factor": 7}
    with (
        linked_broker(
            kafka.url, plan(f"{kafka_prefix}billing"), transport_options=options
        ) as linked,
        pytest.raises(BrokerUnavailable, match="'replication_factor'"),
    ):
        linked.broker.declare()


def test_a_new_group_gets_what_was_published_before_its_first_worker(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue)) as linked:
        linked.publish(*(outgoing(queue, b"%d" % n) for n in range(5)))
        found = read(linked.link(), 5)
        assert {d.message.raw for d in found} == {b"0", b"1", b"2", b"3", b"4"}
        assert not any(d.message.redelivered for d in found)


def test_a_group_that_begins_at_the_end_begins_where_it_was_declared(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    kafka.create_topics({queue: 2})
    with linked_broker(kafka.url, plan(f"{kafka_prefix}other", queue)) as linked:
        linked.publish(outgoing(queue, b"before"))
    quickly: dict[str, t.Any] = {
        "kafka_consumer_config": {
            "auto.offset.reset": "latest",
            "topic.metadata.refresh.interval.ms": 500,
        }
    }
    with linked_broker(kafka.url, plan(queue), transport_options=quickly) as linked:
        linked.broker.declare()
        linked.publish(outgoing(queue, b"after"))
        assert [d.message.raw for d in read(linked.link(), 1)] == [b"after"]


def test_a_topic_that_is_not_there_is_an_error_if_it_is_mandatory(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue)) as linked:
        lost = outgoing(f"{kafka_prefix}nobody")
        errors = linked.broker.publish([outgoing(queue), lost, outgoing(queue)], 10.0)
        assert [type(each) for each in errors] == [type(None), Unroutable, type(None)]
        linked.publish(outgoing(f"{kafka_prefix}nobody", mandatory=False))
        assert f"{kafka_prefix}nobody" not in kafka.topics()
        assert linked.broker.depth(queue) == 2
        kafka.create_topics({f"{kafka_prefix}nobody": 1})
        linked.publish(lost)


def test_a_queue_gets_what_is_sent_to_it_alone(kafka: Kafka, kafka_prefix: str) -> None:
    billing, audit = f"{kafka_prefix}billing", f"{kafka_prefix}audit"
    topic = f"{kafka_prefix}order"
    with linked_broker(kafka.url, plan(billing, topic), plan(audit, topic)) as linked:
        linked.publish(outgoing(billing, exchange=""))
        assert (linked.broker.depth(billing), linked.broker.depth(audit)) == (1, 0)
        missing = outgoing(f"{kafka_prefix}missing", exchange="")
        (error,) = linked.broker.publish([missing], 10.0)
        assert isinstance(error, Unroutable)
        assert "There is no queue" in str(error)


def test_what_is_sent_to_a_queue_may_be_held_back(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue, delays=(1.0,))) as linked:
        sent = time.time()
        linked.publish(outgoing(queue, exchange="", delay=1.0))
        read(linked.link(), 1)
        assert 0.9 <= time.time() - sent < 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"priority": 5}, "Priorities"),
        ({"delay": 5.0}, "exchange=''"),
        ({"exchange": "theirs"}, "no exchange 'theirs'"),
        ({"headers": {"message-id": "x"}}, "'message-id' cannot be set"),
        ({"exchange": "", "delay": 1e9}, "longer than Kafka"),
    ],
)
def test_what_kafka_cannot_do_is_refused_before_anything_is_sent(
    options: dict[str, t.Any], said: str
) -> None:
    # Nothing listens at this address: a message that was sent would hang, or fail
    # otherwise.
    with linked_broker("kafka://127.0.0.1:1", plan("billing")) as linked:
        with pytest.raises(UnsupportedByBroker, match=said):
            linked.broker.publish([outgoing("billing", **options)], 5.0)
        with pytest.raises(UnsupportedByBroker, match="'an order' cannot be one"):
            linked.broker.publish([outgoing("an order")], 5.0)


def test_a_record_that_is_too_large_is_refused(kafka: Kafka, kafka_prefix: str) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue)) as linked:
        (large, small) = linked.broker.publish(
            [outgoing(queue, os.urandom(5_000_000)), outgoing(queue)], 10.0
        )
        assert isinstance(large, PublishRefused)
        assert small is None


def test_a_broker_that_hangs_is_a_timeout_and_the_hub_goes_on(
    own_kafka: Kafka,
) -> None:
    with linked_broker(own_kafka.url, plan("billing")) as linked:
        linked.publish(outgoing("billing"))
        with own_kafka.frozen(), Ticks() as ticks:
            began = time.monotonic()
            (error,) = linked.broker.publish([outgoing("billing")], 1.0)
            took = time.monotonic() - began
        assert isinstance(error, PublishTimeout)
        assert took < 3
        assert ticks.count > 20
        linked.publish(outgoing("billing"))
        own_kafka.kill()
        (error,) = linked.broker.publish([outgoing("billing")], 0.5)
        assert isinstance(error, PublishTimeout)
        own_kafka.start()
        wait_for(
            lambda: linked.broker.publish([outgoing("billing")], 5.0) == [None], 30
        )


def test_a_hundred_greenlets_publish_at_once(kafka: Kafka, kafka_prefix: str) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue)) as linked:
        jobs = [gevent.spawn(linked.publish, outgoing(queue)) for _ in range(100)]
        gevent.joinall(jobs, timeout=20, raise_error=True)
        assert linked.broker.depth(queue) == 100


def test_threads_with_hubs_of_their_own_publish_beside_greenlets(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    pool = ThreadPool(3)
    try:
        with linked_broker(kafka.url, plan(queue)) as linked:
            linked.publish(outgoing(queue))
            for _ in range(5):
                there = [pool.spawn(linked.publish, outgoing(queue)) for _ in range(6)]
                here = [gevent.spawn(linked.publish, outgoing(queue)) for _ in range(6)]
                gevent.joinall(here, timeout=20, raise_error=True)
                for job in there:
                    job.get(timeout=20)
            assert linked.broker.depth(queue) == 61
    finally:
        pool.kill()


def test_a_password_is_in_no_error(kafka: Kafka) -> None:
    address = f"127.0.0.1:{kafka.secured_port}"
    with linked_broker(f"kafka://guest:hunter2@{address}", plan("billing")) as linked:
        with pytest.raises(BrokerRefused) as caught:
            linked.broker.connect(linked.plan, Lane.MAIN, 1)
        assert "hunter2" not in str(caught.value)
    with linked_broker(
        f"kafka://guest:guest@{address}", plan("billing"), declare="never"
    ) as linked:
        assert linked.broker.depth("billing") == 0


def test_a_setting_that_is_not_known_is_an_error_without_secrets() -> None:
    options = {"kafka_common_config": {"sasl.password": "hunter2", "no.such": 1}}
    with linked_broker(
        "kafka://127.0.0.1:1", plan("a"), transport_options=options
    ) as linked:
        with pytest.raises(ConfigurationError, match="no.such") as caught:
            linked.broker.publish([outgoing("a")], 5.0)
        assert "hunter2" not in str(caught.value)


def test_a_fork_has_clients_of_its_own(kafka: Kafka, kafka_prefix: str) -> None:
    """The child publishes, ends, and leaves the parent's clients as they are."""
    queue = f"{kafka_prefix}billing"
    script = f"""
import os, sys
from tests.brokers.kafka.tools import LinkedBroker, outgoing, plan
linked = LinkedBroker({kafka.url!r}, [plan({queue!r})])
linked.publish(outgoing({queue!r}))
pid = os.fork()
linked.publish(outgoing({queue!r}))
linked.close()
if pid:
    assert os.waitpid(pid, 0)[1] == 0
    linked.publish(outgoing({queue!r}))
    print(linked.broker.depth({queue!r}))
    linked.close()
"""
    done = run_script(script)
    assert (done.stdout.strip(), done.returncode) == ("4", 0), done.stderr


def test_the_lag_is_what_is_not_done(kafka: Kafka, kafka_prefix: str) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(
        kafka.url, plan(queue), transport_options={"partitions": 1}
    ) as linked:
        linked.publish(*(outgoing(queue, b"%d" % n) for n in range(10)))
        assert linked.broker.depth(queue) == 10
        link = linked.link()
        found = read(link, 10)
        # Not the first ones: what is done beyond them counts as done nevertheless.
        link.ack(found[4:])
        wait_for(lambda: linked.broker.depth(queue) == 4, 10)
        assert linked.broker.depth("nobody's") == 0
        assert linked.broker.depth(f"{queue}.suspects") == 0


def test_dead_letters_are_listed_and_taken(kafka: Kafka, kafka_prefix: str) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue)) as linked:
        linked.publish(
            *(outgoing(queue, b"%d" % n, id=f"m-{n}", key="k") for n in range(4))
        )
        link = linked.link()
        for delivery in read(link, 4):
            linked.dead_letter(link, delivery, reason=f"no {delivery.message.id}")
        letters = linked.letters()
        assert sorted(x.message.id or "" for x in letters) == [
            "m-0",
            "m-1",
            "m-2",
            "m-3",
        ]
        assert len({letter.ref for letter in letters}) == 4
        first = next(letter for letter in letters if letter.message.id == "m-0")
        assert first.headers["x-qconsume-reason"] == "no m-0"
        assert first.message.key == "k"
        assert linked.broker.depth(f"{queue}.dead") == 4

        dead = linked.broker.dead_letters(linked.plan)
        assert dead.take(lambda letter: letter.message.id == "m-1", replay=False) == 1
        assert dead.take(lambda letter: letter.message.id == "m-2", replay=True) == 1
        assert sorted(x.message.id or "" for x in linked.letters()) == ["m-0", "m-3"]
        (again,) = read(link, 1)
        assert (again.message.id, again.message.attempt) == ("m-2", 1)
        assert again.message.properties["topic"] == f"_qconsume.{queue}.retry.0"
        assert "x-qconsume-reason" not in again.message.headers
        # What dies again is another dead letter, and no older tombstone removes it.
        linked.dead_letter(link, again, reason="again")
        assert sorted(x.message.id or "" for x in linked.letters()) == [
            "m-0",
            "m-2",
            "m-3",
        ]


def test_a_dead_letter_that_is_forwarded_twice_is_one(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue)) as linked:
        linked.publish(outgoing(queue))
        link = linked.link()
        (delivery,) = read(link, 1)
        linked.dead_letter(link, delivery)
        linked.dead_letter(link, delivery)
        assert len(linked.letters()) == 1


def test_no_dead_letters_are_no_error(kafka: Kafka, kafka_prefix: str) -> None:
    with linked_broker(
        kafka.url, plan(f"{kafka_prefix}billing"), declare="never"
    ) as linked:
        assert linked.letters() == []
        assert linked.broker.dead_letters(linked.plan).count() == 0
        assert linked.broker.stale_bindings() == []


def test_a_step_that_is_not_there_is_made_or_a_longer_one_is_taken(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue, delays=(8.0,))) as linked:
        linked.publish(outgoing(queue, b"1"), outgoing(queue, b"2"))
        link = linked.link()
        first, second = read(link, 2)
        # 8 s serve for 3 s, but not for 1 s.
        assert link.forward([Forward(first, Lane.MAIN, {}, delay=3.0)]) == [None]
        assert link.forward([Forward(second, Lane.MAIN, {}, delay=1.0)]) == [None]
        (again,) = read(link, 1)
        assert again.message.properties["topic"] == f"_qconsume.{queue}.retry.1"
    mine = {n for n in kafka.topics() if f"{queue}.retry" in n}
    assert mine == {f"_qconsume.{queue}.retry.{n}" for n in (0, 1, 8)}


def test_where_nothing_may_be_made_a_step_that_is_there_is_taken(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue, delays=(1.0,))) as linked:
        linked.broker.declare()
    with linked_broker(kafka.url, plan(queue), declare="passive") as linked:
        linked.publish(outgoing(queue))
        link = linked.link()
        (delivery,) = read(link, 1)
        assert link.forward([Forward(delivery, Lane.MAIN, {}, delay=2.0)]) == [None]
        began = time.monotonic()
        (again,) = read(link, 1)
        assert again.message.properties["topic"] == f"_qconsume.{queue}.retry.1"
        assert time.monotonic() - began > 1.5


#: The client has no types for these.
_untyped: t.Any = _admin

#: Nothing is found by the client's own looks.
BLINDLY: dict[str, t.Any] = {
    "kafka_consumer_config": {
        "heartbeat.interval.ms": 200,
        "topic.metadata.refresh.interval.ms": 300_000,
    }
}


def test_topics_that_come_later_are_found_by_the_look_of_the_process(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = plan(f"{kafka_prefix}billing", f"{kafka_prefix}order.*")
    topic = f"{kafka_prefix}order.created"
    with linked_broker(kafka.url, queue, transport_options=BLINDLY) as linked:
        link = linked.link()
        kafka.create_topics({topic: 1})
        with linked_broker(kafka.url, plan(f"{kafka_prefix}other", topic)) as other:
            other.publish(outgoing(topic, b"created"))
        # As if the last look were long ago.
        t.cast(KafkaBroker, linked.broker)._topics.forget()
        link.keep_alive()
        assert [d.message.raw for d in read(link, 1)] == [b"created"]


def test_partitions_that_are_added_are_read_as_soon_as_they_are_seen(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    kafka.create_topics({queue: 1})
    with linked_broker(kafka.url, plan(queue), transport_options=BLINDLY) as linked:
        linked.publish(outgoing(queue, b"first"))
        link = linked.link()
        link.ack(read(link, 1))
        more = _untyped.NewPartitions(queue, 4)
        admin = kafka.admin()
        admin.create_partitions([more])[queue].result(10)
        produce(kafka.address, queue, [b"new"], partition=3)
        wait_for(lambda: linked.broker.depth(queue) == 1, 20)
        assert [d.message.raw for d in read(link, 1)] == [b"new"]


def test_a_topic_of_longer_retries_is_read_at_once_by_its_creator(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue), transport_options=BLINDLY) as linked:
        linked.publish(outgoing(queue, b"late"))
        link = linked.link()
        (delivery,) = read(link, 1)
        again = Forward(delivery, Lane.MAIN, delivery.message.headers, delay=2.0)
        assert link.forward([again]) == [None]
        assert [d.message.raw for d in read(link, 1)] == [b"late"]


def topic_is_deleted(kafka: Kafka, topic: str, link: t.Any) -> None:
    """Delete a topic, and wait until the link knows."""
    kafka.delete_topics(topic)
    wait_for(lambda: link.read(5, 0.1) or link.interrupted, 30)
    assert link.interrupted


def test_a_topic_that_is_deleted_is_declared_again(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue)) as linked:
        link = linked.link()
        linked.publish(outgoing(queue, b"old"))
        link.ack(read(link, 1))
        topic_is_deleted(kafka, queue, link)
        with pytest.raises(BrokerUnavailable, match=f"topic '{queue}' was deleted"):
            link.keep_alive()
        link.close()
        again = linked.link()
        assert not again.interrupted
        linked.publish(outgoing(queue, b"new"))
        assert [d.message.raw for d in read(again, 1)] == [b"new"]


def test_a_publisher_declares_a_topic_again_too(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue)) as linked:
        linked.publish(outgoing(queue))
        kafka.delete_topics(queue)
        wait_for(lambda: queue not in kafka.topics())
        wait_for(lambda: linked.broker.publish([outgoing(queue)], 3.0) == [None], 60)


def test_where_topics_are_not_declared_it_is_waited_until_they_are_there_again(
    kafka: Kafka, kafka_prefix: str
) -> None:
    theirs = f"{kafka_prefix}theirs"
    kafka.create_topics({theirs: 2})
    given = Queue(f"{kafka_prefix}billing", routing_key=theirs)
    with linked_broker(kafka.url, plan(given.name, theirs, given=given)) as linked:
        link = linked.link()
        topic_is_deleted(kafka, theirs, link)
        link.keep_alive()
        assert link.interrupted
        kafka.create_topics({theirs: 2})
        produce(kafka.address, theirs, [b"new"])
        wait_for(
            lambda: (
                t.cast(KafkaBroker, linked.broker)._topics.look()
                and not link.interrupted
            )
        )
        assert [d.message.raw for d in read(link, 1, 60)] == [b"new"]


def test_a_topic_is_taken_for_deleted_only_after_a_second_look(
    kafka: Kafka, kafka_prefix: str
) -> None:
    """The broker that is asked may have just come back, and not know all topics."""
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue)) as linked:
        link = linked.link()
        broker = t.cast(KafkaBroker, linked.broker)
        broker._topics._partition_counts = {}
        broker._on_topics_changed({})
        assert link.interrupted
        link.keep_alive()
        assert not link.interrupted
