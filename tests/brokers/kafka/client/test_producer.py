"""A producer with a client that stops confirming records."""

from __future__ import annotations

import typing as t

import pytest

from flask_qconsume import PublishTimeout
from flask_qconsume.brokers.kafka.client.config import create_kafka_config
from flask_qconsume.brokers.kafka.client.producer import KafkaProducer
from flask_qconsume.brokers.kafka.client.producer import ProducerRecord

from ....servers.kafka import Kafka
from ....waiting import wait_for

#: Seconds of a send.
_TIMEOUT = 1.0


@pytest.fixture
def topic(own_kafka: Kafka) -> str:
    own_kafka.create_topics({"orders": 1})
    return "orders"


def producing(kafka: Kafka, max_unconfirmed: float) -> KafkaProducer:
    config = create_kafka_config(kafka.url, {}).producer(_TIMEOUT)
    return KafkaProducer(config, max_unconfirmed)


def sent(producer: KafkaProducer, topic: str) -> Exception | None:
    (error,) = producer.send([ProducerRecord(topic, b"1")], _TIMEOUT)
    return error


def is_confirmed(producer: KafkaProducer, topic: str) -> bool:
    return sent(producer, topic) is None


def client_of(producer: KafkaProducer) -> t.Any:
    return producer._client


def test_a_client_that_confirms_nothing_for_long_is_made_anew(
    own_kafka: Kafka, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    producer = producing(own_kafka, max_unconfirmed=2 * _TIMEOUT)
    wait_for(lambda: is_confirmed(producer, topic), 20)
    first = client_of(producer)
    own_kafka.freeze()
    assert isinstance(sent(producer, topic), PublishTimeout)
    assert client_of(producer) is first
    wait_for(lambda: sent(producer, topic) and client_of(producer) is not first, 20)
    own_kafka.thaw()
    wait_for(lambda: is_confirmed(producer, topic), 20)
    assert client_of(producer) is not first
    assert "next publish creates another" in caplog.text
    producer.close()


def test_a_client_is_kept_over_a_silence_that_is_short(
    own_kafka: Kafka, topic: str
) -> None:
    producer = producing(own_kafka, max_unconfirmed=60.0)
    wait_for(lambda: is_confirmed(producer, topic), 20)
    first = client_of(producer)
    own_kafka.freeze()
    for _ in range(3):
        assert isinstance(sent(producer, topic), PublishTimeout)
    own_kafka.thaw()
    wait_for(lambda: is_confirmed(producer, topic), 20)
    assert client_of(producer) is first
    producer.close()
