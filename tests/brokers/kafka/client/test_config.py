"""The address and the options of a Kafka, and which of them are refused."""

from __future__ import annotations

import typing as t

import pytest

from flask_qconsume import ConfigurationError
from flask_qconsume.brokers.kafka.client.config import create_kafka_config


def config(url: str = "kafka://localhost", **options: t.Any) -> t.Any:
    return create_kafka_config(url, options)


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("kafka://localhost", "localhost:9092"),
        ("kafka://localhost:19092/", "localhost:19092"),
        ("kafka://a,b:1,c.example:2", "a:9092,b:1,c.example:2"),
        ("kafka://[::1]", "[::1]:9092"),
        ("kafka://[::1]:5", "[::1]:5"),
    ],
)
def test_the_hosts(url: str, servers: str) -> None:
    assert config(url).admin()["bootstrap.servers"] == servers
    assert "security.protocol" not in config(url).admin()


def test_a_user_means_sasl_and_is_not_shown() -> None:
    found = config("kafka://shop:s%40cret@localhost")

    assert found.producer()["security.protocol"] == "SASL_PLAINTEXT"
    assert found.producer()["sasl.mechanism"] == "PLAIN"
    assert found.consumer("g")["sasl.username"] == "shop"
    assert found.consumer("g")["sasl.password"] == "s@cret"
    assert "s@cret" not in repr(found)


def test_tls() -> None:
    assert config("kafkas://localhost").admin()["security.protocol"] == "SSL"
    found = config("kafkas://shop:secret@localhost").admin()
    assert found["security.protocol"] == "SASL_SSL"
    # What verifies is librdkafka's default, and nothing of ours.
    assert not [name for name in found if "verif" in name or "identification" in name]


def test_a_silent_connection_is_given_up_as_it_is_told() -> None:
    found = create_kafka_config("kafka://localhost", {}, answer_timeout=4)
    for each in (found.consumer("g"), found.producer(), found.admin()):
        assert each["socket.timeout.ms"] == 4_000
    assert "socket.timeout.ms" not in config().admin()
    long = create_kafka_config("kafka://localhost", {}, answer_timeout=1_200)
    assert long.admin()["socket.timeout.ms"] == 300_000

    options = {"kafka_common_config": {"socket.timeout.ms": 9_000}}
    given = create_kafka_config("kafka://localhost", options, answer_timeout=4)
    assert given.consumer("g")["socket.timeout.ms"] == 9_000


@pytest.mark.parametrize(
    "url",
    [
        "kafka://",
        "kafka:localhost",
        "http://localhost",
        "kafka://localhost:port",
        "kafka://localhost:0",
        "kafka://localhost:65536",
        "kafka://a,,b",
        "kafka://localhost/topic",
        "kafka://localhost?acks=1",
    ],
)
def test_an_address_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="address of a Kafka"):
        config(url)


def test_settings_are_passed_on_to_the_clients_they_are_for() -> None:
    found = config(
        kafka_common_config={"client.id": "shop"},
        kafka_consumer_config={"fetch.wait.max.ms": 10},
        kafka_producer_config={"linger.ms": 5, "client.id": "shop-out"},
        kafka_admin_config={"socket.timeout.ms": 9},
        kafka_topic_config={"retention.ms": 60_000},
    )

    assert found.consumer("g")["client.id"] == "shop"
    assert found.consumer("g")["fetch.wait.max.ms"] == 10
    assert found.producer()["client.id"] == "shop-out"
    assert found.producer()["linger.ms"] == 5
    assert found.admin()["socket.timeout.ms"] == 9
    assert "linger.ms" not in found.consumer("g")
    assert found.topic == {"retention.ms": "60000"}


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        ("kafka_consumer_config", "enable.auto.commit", True),
        ("kafka_consumer_config", "enable.auto.offset.store", "true"),
        ("kafka_consumer_config", "group.id", "mine"),
        ("kafka_consumer_config", "group.protocol", "consumer"),
        ("kafka_producer_config", "enable.idempotence", False),
        ("kafka_producer_config", "acks", 1),
        ("kafka_producer_config", "transactional.id", "x"),
        ("kafka_common_config", "bootstrap.servers", "elsewhere"),
        ("kafka_common_config", "acks", "0"),
    ],
)
def test_what_would_break_a_promise_is_refused(
    option: str, name: str, value: t.Any
) -> None:
    with pytest.raises(ConfigurationError, match=f"'{name}' in the transport option"):
        config(**{option: {name: value}})


def test_what_keeps_the_promises_is_taken() -> None:
    found = config(
        kafka_consumer_config={"enable.auto.commit": False},
        kafka_producer_config={"acks": "all", "enable.idempotence": True},
    )
    assert found.producer()["acks"] == "all"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partition": 3}, "did you mean 'partitions'"),
        ({"partitions": 0}, "from 1 up"),
        ({"partitions": True}, "from 1 up"),
        ({"replication_factor": "3"}, "from -1 up"),
        ({"topics": ["a"]}, "not a mapping"),
        ({"topics": {"a": 0}}, "'a' must be a whole number"),
        ({"kafka_topic_config": "x"}, "not a mapping"),
        ({"kafka_consumer_config": 3}, "not a mapping"),
        ({"rebalance_grace": -1}, "seconds from 0 to 3600"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, t.Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        config(**options)


def test_options_of_our_own() -> None:
    found = config(
        partitions=12, replication_factor=3, topics={"a": 4}, rebalance_grace=2
    )
    assert (found.partitions, found.replication_factor) == (12, 3)
    assert (found.topics, found.grace) == ({"a": 4}, 2.0)


@pytest.mark.parametrize(
    ("lease", "session"),
    [(60.0, 60_000), (2.0, 6_000), (1e6, 1_800_000)],
)
def test_the_lease_is_how_long_a_member_may_be_silent(
    lease: float, session: int
) -> None:
    found = config().consumer("billing", lease)
    assert found["session.timeout.ms"] == session
    assert found["heartbeat.interval.ms"] == 1_000
    assert found["group.id"] == "billing"


def test_a_session_timeout_among_the_options_is_taken() -> None:
    found = config(kafka_consumer_config={"session.timeout.ms": 9_000})
    assert found.consumer("billing", 60.0)["session.timeout.ms"] == 9_000


def test_nothing_is_committed_that_was_not_handled() -> None:
    found = config().consumer("billing")
    assert found["enable.auto.commit"] is False
    assert found["enable.auto.offset.store"] is False
    assert found["auto.offset.reset"] == "earliest"
    assert not config().begins_at_the_end


def test_a_new_group_may_begin_at_the_end() -> None:
    found = config(kafka_consumer_config={"auto.offset.reset": "latest"})
    assert found.begins_at_the_end


@pytest.mark.parametrize("option", ["kafka_consumer_config", "kafka_common_config"])
@pytest.mark.parametrize("value", ["error", "newest", None])
def test_where_a_new_group_begins_is_one_of_two_places(
    option: str, value: t.Any
) -> None:
    with pytest.raises(ConfigurationError, match="'earliest' or 'latest'"):
        config(**{option: {"auto.offset.reset": value}})


def test_a_producer_waits_no_longer_than_a_publish() -> None:
    found = config().producer(2.5)
    assert found["message.timeout.ms"] == 2_500
    assert found["enable.idempotence"] is True
    assert found["acks"] == "all"
