"""Which partitions hold records, on a real Kafka."""

from __future__ import annotations

import typing as t

import pytest
from confluent_kafka import OFFSET_END
from confluent_kafka import TopicPartition

from flask_qconsume import BrokerError
from flask_qconsume.brokers.kafka.client.admin import FilledPartitions

from ....harness.scripts import run_script
from ....servers.kafka import Kafka
from ....waiting import wait_for
from .tools import config
from .tools import produce


@pytest.fixture
def filled(kafka: Kafka) -> t.Iterator[FilledPartitions]:
    filled = FilledPartitions(config(kafka.address, "nobody"))
    yield filled
    filled.close()


def test_what_holds_records_is_told_from_what_does_not(
    kafka: Kafka, kafka_prefix: str, filled: FilledPartitions
) -> None:
    full, empty, gone = (f"{kafka_prefix}{name}" for name in ("full", "empty", "gone"))
    kafka.create_topics({full: 2, empty: 1})
    produce(kafka.address, full, [b"one"], partition=1)
    places = [(full, 0), (full, 1), (empty, 0), (gone, 0)]
    assert filled.find(places, 10.0) == {(full, 1)}
    assert filled.find([], 10.0) == set()


def test_records_that_were_deleted_are_there_no_more(
    kafka: Kafka, kafka_prefix: str, filled: FilledPartitions
) -> None:
    topic = f"{kafka_prefix}full"
    kafka.create_topics({topic: 1})
    produce(kafka.address, topic, [b"one", b"two"])
    assert filled.find([(topic, 0)], 10.0) == {(topic, 0)}
    all_of_it = TopicPartition(topic, 0, OFFSET_END)
    admin = kafka.admin()
    (deleted,) = admin.delete_records([all_of_it]).values()
    deleted.result(10)
    assert filled.find([(topic, 0)], 10.0) == set()


def test_a_broker_that_hangs_is_an_error_and_one_that_is_back_is_asked(
    own_kafka: Kafka,
) -> None:
    own_kafka.create_topics({"full": 1})
    produce(own_kafka.address, "full", [b"one"])
    filled = FilledPartitions(config(own_kafka.address, "nobody"))
    with own_kafka.frozen():
        for _ in range(5):
            with pytest.raises(BrokerError):
                filled.find([("full", 0)], 0.2)
    assert filled.find([("full", 0)], 20.0) == {("full", 0)}
    own_kafka.kill()
    for _ in range(5):
        with pytest.raises(BrokerError):
            filled.find([("full", 0)], 0.2)
    own_kafka.start()
    wait_for(lambda: answer(filled) == {("full", 0)}, 30)
    filled.close()


def answer(filled: FilledPartitions) -> object:
    try:
        return filled.find([("full", 0)], 1.0)
    except BrokerError as error:
        return error


def test_it_is_opened_anew_after_it_was_closed(
    kafka: Kafka, kafka_prefix: str, filled: FilledPartitions
) -> None:
    topic = f"{kafka_prefix}full"
    kafka.create_topics({topic: 1})
    produce(kafka.address, topic, [b"one"])
    for _ in range(2):
        assert filled.find([(topic, 0)], 10.0) == {(topic, 0)}
        filled.close()


def test_a_fork_has_a_client_of_its_own(kafka: Kafka, kafka_prefix: str) -> None:
    """This needs a process without other clients: forks do not copy their threads."""
    topic = f"{kafka_prefix}full"
    kafka.create_topics({topic: 1})
    produce(kafka.address, topic, [b"one"])
    script = f"""
import os
from flask_qconsume.brokers.kafka.client.admin import FilledPartitions
from tests.brokers.kafka.client.tools import config
place = ({topic!r}, 0)
filled = FilledPartitions(config({kafka.address!r}, "nobody"))
assert filled.find([place], 10.0) == {{place}}
pid = os.fork()
assert filled.find([place], 10.0) == {{place}}
filled.close()
if pid:
    assert os.waitpid(pid, 0)[1] == 0
    print("both")
"""
    done = run_script(script)
    assert (done.stdout.strip(), done.returncode) == ("both", 0), done.stderr


def test_where_the_question_for_all_fails_each_is_asked_for_alone(
    kafka: Kafka, kafka_prefix: str, filled: FilledPartitions
) -> None:
    topic = f"{kafka_prefix}full"
    kafka.create_topics({topic: 2})
    produce(kafka.address, topic, [b"one"])
    places = [(topic, 0), (topic, 1), (topic, 7)]
    # Not even connected by then.
    assert filled.find(places, 0.001) == {(topic, 0)}
    assert filled.find(places, 10.0) == {(topic, 0)}
