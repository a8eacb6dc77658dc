"""Actions of operators and brokers, and the reaction of workers to each."""

from __future__ import annotations

import pytest

from flask_qconsume import PublishTimeout

from ..servers.kafka import Kafka
from ..servers.rabbitmq import Vhost
from ..waiting import wait_for
from .conftest import MakeDeployment


@pytest.fixture
def vhost(own_rabbitmq_vhost: Vhost) -> Vhost:
    return own_rabbitmq_vhost


def test_a_queue_deleted_under_a_worker_is_declared_again(
    make_deployment: MakeDeployment, vhost: Vhost
) -> None:
    deployment = make_deployment("quorum")
    worker = deployment.fleet.start()
    deployment.publish([1])
    deployment.await_done([1])
    vhost.delete_queue("work")
    wait_for(lambda: "lost the connection" in deployment.fleet.logs(), 20)
    wait_for(
        lambda: deployment.fleet.logs().count("consuming the queue 'work'") == 2, 20
    )
    deployment.publish([2])

    deployment.await_done([2])
    assert deployment.fleet.term(worker) == 0


def test_connections_closed_by_the_operator_come_back(
    make_deployment: MakeDeployment, vhost: Vhost
) -> None:
    deployment = make_deployment("quorum")
    worker = deployment.fleet.start()
    for number in range(3):
        deployment.publish([number])
        deployment.await_done([number])
        vhost.close_connections("maintenance")
    deployment.publish([3])

    deployment.await_done([3])
    assert "maintenance" in deployment.fleet.logs()
    assert deployment.fleet.term(worker) == 0


def test_a_wrong_password_ends_the_start_with_what_to_do(
    make_deployment: MakeDeployment, vhost: Vhost
) -> None:
    deployment = make_deployment("quorum")
    deployment.fleet.config["BROKER_URL"] = vhost.url.replace(
        "guest:guest", "guest:secret"
    )
    worker = deployment.fleet.start(ready=False)

    assert worker.wait(30) == 1
    assert "Check the user and the password" in deployment.fleet.logs()
    assert "secret" not in deployment.fleet.logs()
    assert "Traceback" not in deployment.fleet.logs()


def test_a_queue_with_other_arguments_ends_the_start_with_what_to_do(
    make_deployment: MakeDeployment,
) -> None:
    deployment = make_deployment("quorum")
    deployment.publish([1])
    deployment.fleet.config["QUEUE_TYPE"] = "classic"
    worker = deployment.fleet.start(ready=False)

    assert worker.wait(30) == 1
    assert "'work' with other arguments" in deployment.fleet.logs()
    assert "Traceback" not in deployment.fleet.logs()


def test_under_a_memory_alarm_publishing_fails_in_time_and_retries_wait(
    make_deployment: MakeDeployment, vhost: Vhost
) -> None:
    """An unconfirmed message may still arrive once the alarm is over."""
    deployment = make_deployment(
        "quorum", RETRY={"min_delay": 2, "jitter": 0}, PUBLISH_TIMEOUT=3
    )
    worker = deployment.fleet.start()
    deployment.publish(range(5), do="fail")
    with (
        vhost.server.memory_alarm(),
        pytest.raises(PublishTimeout, match="short of memory"),
    ):
        deployment.publish([99])
    deployment.await_done(range(5))

    assert deployment.fleet.term(worker) == 0
    assert deployment.dead() == []


def test_a_handler_that_hogs_the_processor_past_the_heartbeat_is_not_repeated(
    make_deployment: MakeDeployment,
) -> None:
    """The connection is lost meanwhile; the next one acknowledges the message."""
    deployment = make_deployment("quorum", HEARTBEAT=1, TIMEOUT=60)
    worker = deployment.fleet.start()
    deployment.publish([1], do="hog", seconds=6)
    deployment.publish(range(2, 50))
    deployment.await_done(range(1, 50))
    wait_for(lambda: deployment.consumers.broker.depth("work") == 0)
    wait_for(lambda: deployment.consumers.broker.depth("work.suspects") == 0)

    assert deployment.fleet.term(worker) == 0
    assert deployment.ledger.counted("start")[1] == 1
    assert "lost the connection" in deployment.fleet.logs()
    assert deployment.dead() == []


@pytest.mark.long
def test_kafka_is_not_lost_by_a_handler_that_hogs_the_processor(
    make_deployment: MakeDeployment,
) -> None:
    """The client's threads keep the session alive while the handler blocks."""
    deployment = make_deployment("kafka", TIMEOUT=60)
    worker = deployment.fleet.start()
    deployment.publish([1], do="hog", seconds=5)
    deployment.publish(range(2, 50))
    deployment.await_done(range(1, 50))

    assert deployment.fleet.term(worker) == 0
    assert set(deployment.ledger.counted("start").values()) == {1}
    assert "lost" not in deployment.fleet.logs()


def test_a_wrong_password_for_kafka_ends_the_start_with_what_to_do(
    make_deployment: MakeDeployment, own_kafka: Kafka
) -> None:
    deployment = make_deployment("kafka")
    deployment.fleet.config["BROKER_URL"] = (
        f"kafka://guest:secret@localhost:{own_kafka.secured_port}"
    )
    worker = deployment.fleet.start(ready=False)

    assert worker.wait(30) == 1
    assert "Check the user" in deployment.fleet.logs()
    assert "secret" not in deployment.fleet.logs()
    assert "Traceback" not in deployment.fleet.logs()


@pytest.mark.long
def test_a_topic_deleted_under_a_worker_is_read_again_once_it_is_declared(
    make_deployment: MakeDeployment, own_kafka: Kafka
) -> None:
    deployment = make_deployment("kafka")
    worker = deployment.fleet.start()
    deployment.publish([1])
    deployment.await_done([1])
    own_kafka.delete_topics("work")
    wait_for(lambda: "of the queue 'work' was deleted" in deployment.fleet.logs(), 30)
    deployment.consumers.broker.declare()
    deployment.publish([2])

    deployment.await_done([2])
    assert deployment.fleet.term(worker) == 0


@pytest.mark.long
def test_a_kafka_that_hangs_for_a_while_is_waited_for(
    make_deployment: MakeDeployment, own_kafka: Kafka
) -> None:
    deployment = make_deployment("kafka")
    worker = deployment.fleet.start()
    deployment.publish(range(100))
    deployment.await_done(range(50))
    with own_kafka.frozen(seconds=5):  # Longer than the group's session timeout.
        pass
    deployment.publish(range(100, 200))
    deployment.await_done(range(200))

    assert deployment.fleet.term(worker) == 0
    assert deployment.dead() == []
