"""What Kafka refuses, which error that raises, and its advice."""

from __future__ import annotations

import contextlib
import socket
import typing as t

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import KafkaException
from confluent_kafka import admin as _admin

from flask_qconsume.broker.refusal_table import Refusal
from flask_qconsume.brokers.kafka.client.errors import ends_client
from flask_qconsume.brokers.kafka.client.errors import is_refusal
from flask_qconsume.brokers.kafka.client.errors import translate_error
from flask_qconsume.brokers.kafka.client.refusals import REFUSALS
from flask_qconsume.errors import BrokerError
from flask_qconsume.errors import BrokerRefused
from flask_qconsume.errors import BrokerUnavailable
from flask_qconsume.errors import ConfigurationError
from flask_qconsume.errors import PublishRefused
from flask_qconsume.errors import TopologyMismatch
from flask_qconsume.errors import UnsupportedByBroker

from ...servers.kafka import Kafka
from ...waiting import wait_for
from .tools import LinkedBroker
from .tools import linked_broker
from .tools import outgoing
from .tools import plan
from .tools import read

_a: t.Any = _admin

#: A text that says what other situations say.
MISLEADING = "certificate verify failed: Topic authorization failed, timed out"


@pytest.fixture(scope="module")
def guarded(
    kafka: Kafka, tmp_path_factory: pytest.TempPathFactory
) -> t.Iterator[Kafka]:
    """A Kafka with an authorizer: the user 'shop' may do nothing, all other users
    anything.
    """
    config = {
        "authorizer.class.name": (
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        ),
        "super.users": "User:ANONYMOUS",
        "group.max.size": "1",
    }
    folder = tmp_path_factory.mktemp("guarded")
    with Kafka(folder, users={"shop": "secret"}, config=config) as server:
        yield server


def allow(server: Kafka, kind: str, name: str, *operations: str) -> None:
    """Allow the user 'shop' something, for all names with a prefix."""
    rules = [
        _a.AclBinding(
            getattr(_a.ResourceType, kind),
            name,
            _a.ResourcePatternType.PREFIXED,
            "User:shop",
            "*",
            getattr(_a.AclOperation, operation),
            _a.AclPermissionType.ALLOW,
        )
        for operation in operations
    ]
    admin = server.admin()
    for future in admin.create_acls(rules).values():
        future.result(10)


def linked_as_shop_user(
    server: Kafka, queue: str, login: str = "shop:secret", **more: t.Any
) -> contextlib.AbstractContextManager[LinkedBroker]:
    """A broker with links, opened as the user 'shop'."""
    common = more.pop("common", {})
    return linked_broker(
        f"kafka://{login}@127.0.0.1:{server.secured_port}",
        plan(queue),
        transport_options={"kafka_common_config": common, "partitions": 1},
        **more,
    )


def test_topics_need_permissions(guarded: Kafka) -> None:
    with (
        linked_as_shop_user(guarded, "orders") as linked,
        pytest.raises(BrokerRefused, match="'Create'"),
    ):
        linked.broker.declare()
    guarded.create_topics({"given": 1})
    allow(guarded, "TOPIC", "given", "DESCRIBE")
    with linked_as_shop_user(guarded, "given", declare="never") as linked:
        (error,) = linked.broker.publish([outgoing("given")], 5.0)
        assert isinstance(error, BrokerRefused)
        # The client's own first question to the broker is refused as a whole.
        assert "'IdempotentWrite'" in str(error)
        allow(guarded, "TOPIC", "given", "WRITE")
        wait_for(lambda: linked.broker.publish([outgoing("given")], 5.0) == [None], 30)


def test_groups_need_permissions(guarded: Kafka) -> None:
    for name in "billing", "_qconsume.billing":
        allow(guarded, "TOPIC", name, "CREATE", "READ", "WRITE")
    with linked_as_shop_user(guarded, "billing") as linked:
        linked.broker.declare()
        linked.publish(outgoing("billing"))
        with pytest.raises(BrokerRefused, match="'Read' on the group"):
            linked.link()
        allow(guarded, "GROUP", "billing", "READ")
        assert len(read(linked.link(), 1)) == 1


def test_a_group_that_is_full_is_waited_for(guarded: Kafka) -> None:
    queue = "full"
    with linked_broker(guarded.url, plan(queue)) as linked:
        linked.publish(outgoing(queue))
        first = linked.link()
        assert len(read(first, 1)) == 1
        second = linked.link()
        with pytest.raises(BrokerUnavailable, match="'group.max.size'"):
            wait_for(lambda: second.read(1))


@pytest.mark.parametrize(
    ("login", "common"),
    [
        ("shop:wrong", {}),
        ("nobody:secret", {}),
        ("shop:secret", {"sasl.mechanism": "SCRAM-SHA-256"}),
    ],
)
def test_an_unknown_user_is_refused(
    guarded: Kafka, login: str, common: dict[str, str]
) -> None:
    with linked_as_shop_user(guarded, "orders", login, common=common) as linked:
        with pytest.raises(BrokerRefused, match="'sasl.mechanism'"):
            linked.broker.declare()
        (error,) = linked.broker.publish([outgoing("orders")], 5.0)
        assert isinstance(error, BrokerRefused)


def test_tls_spoken_to_a_port_without_it_is_told(kafka: Kafka) -> None:
    with linked_broker(f"kafkas://127.0.0.1:{kafka.port}", plan("orders")) as linked:
        (error,) = linked.broker.publish([outgoing("orders")], 3.0)
        assert type(error) is BrokerRefused
        assert "does not speak TLS at this port" in str(error)
        assert "'kafka://'" in str(error)


def test_a_broker_that_is_not_there_is_an_outage() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with linked_broker(f"kafka://127.0.0.1:{port}", plan("orders")) as linked:
        (error,) = linked.broker.publish([outgoing("orders")], 2.0)
        assert type(error) is BrokerUnavailable
        assert "Connection refused" in str(error)


@pytest.mark.parametrize("kind", ["common", "consumer", "producer", "admin"])
@pytest.mark.parametrize("name", ["ssl.ca.location", "ssl.key.location"])
def test_a_file_that_is_not_there_is_named(name: str, kind: str) -> None:
    options = {f"kafka_{kind}_config": {name: "/nowhere/kafka.pem"}}
    with (
        pytest.raises(ConfigurationError, match=rf"'{name}'.*/nowhere/kafka.pem"),
        linked_broker(
            "kafkas://localhost:1", plan("orders"), transport_options=options
        ),
    ):
        pass


def test_a_topic_with_a_bad_setting_is_a_mismatch(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    options = {"kafka_topic_config": {"retention.ms": "long"}}
    with (
        linked_broker(kafka.url, plan(queue), transport_options=options) as linked,
        pytest.raises(TopologyMismatch, match=f"'{queue}'.*'kafka_topic_config'"),
    ):
        linked.broker.declare()


CODES = [(name, row) for row in REFUSALS for name in row.codes]


@pytest.mark.parametrize(("name", "row"), CODES)
def test_each_code_is_one_error_whatever_its_text_says(
    name: str, row: Refusal[str]
) -> None:
    error = KafkaError(getattr(KafkaError, name), MISLEADING)
    for found in translate_error(error), translate_error(KafkaException(error)):
        assert type(found) is row.error
        assert row.advice in str(found)
        assert name in str(found)
    assert is_refusal(error) is (row.error is BrokerRefused)
    assert ends_client(error) is (is_refusal(error) or name == "GROUP_MAX_SIZE_REACHED")


def test_no_code_has_two_meanings() -> None:
    codes = [getattr(KafkaError, name) for name, _ in CODES]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("TOPIC_AUTHORIZATION_FAILED", BrokerRefused),
        ("GROUP_AUTHORIZATION_FAILED", BrokerRefused),
        ("FENCED_INSTANCE_ID", BrokerRefused),
        ("UNSUPPORTED_VERSION", UnsupportedByBroker),
        ("MSG_SIZE_TOO_LARGE", PublishRefused),
        ("INVALID_CONFIG", TopologyMismatch),
        ("INVALID_REPLICATION_FACTOR", BrokerUnavailable),
        ("NOT_ENOUGH_REPLICAS", BrokerUnavailable),
        ("KAFKA_STORAGE_ERROR", BrokerUnavailable),
        ("THROTTLING_QUOTA_EXCEEDED", BrokerUnavailable),
        ("NOT_COORDINATOR", BrokerUnavailable),
        ("_TRANSPORT", BrokerUnavailable),
        ("UNKNOWN", BrokerError),
    ],
)
def test_what_passes_is_waited_for_and_the_rest_is_final(
    code: str, kind: type[BrokerError]
) -> None:
    assert type(translate_error(KafkaError(getattr(KafkaError, code)))) is kind


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("error:0A000086:SSL routines::certificate verify failed", "'ssl.ca.location'"),
        ("error:1416F086:SSL routines:tls_process_server_certificate", "ca.location"),
        ("error:0A000416:SSL routines::sslv3 alert certificate unknown", "ssl.key"),
        ("error:0A00045C:SSL routines::tlsv13 alert certificate required", "ssl.key"),
        ("error:0A00010B:SSL routines::wrong version number", "speaks no TLS"),
    ],
)
def test_openssl_s_number_tells_a_refusal_of_tls(said: str, advice: str) -> None:
    error = KafkaError(KafkaError._SSL, f"ssl://localhost:1: SSL handshake: {said}")
    assert is_refusal(error)
    assert type(translate_error(error)) is BrokerRefused
    assert advice in str(translate_error(error))


@pytest.mark.parametrize(
    "said",
    [
        "ssl://verify.example:1: SSL handshake failed: Disconnected",
        "ssl://localhost:1: error:0A000126:SSL routines::unexpected eof while reading",
    ],
)
def test_tls_that_breaks_off_is_an_outage(said: str) -> None:
    error = KafkaError(KafkaError._SSL, said)
    assert not is_refusal(error)
    assert type(translate_error(error)) is BrokerUnavailable
