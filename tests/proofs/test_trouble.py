"""What an operator or a broker may do to us, each with its right reaction."""

from __future__ import annotations

import pytest

from flask_qconsume import PublishTimeout

from ..servers.kafka import Kafka
from ..servers.rabbitmq import Vhost
from ..waiting import wait_for
from .conftest import MakeStage


@pytest.fixture
def vhost(own_rabbitmq_vhost: Vhost) -> Vhost:
    return own_rabbitmq_vhost


def test_a_queue_deleted_under_a_worker_is_declared_again(
    make_stage: MakeStage, vhost: Vhost
) -> None:
    stage = make_stage("quorum")
    worker = stage.fleet.start()
    stage.publish([1])
    stage.await_done([1])
    vhost.delete_queue("work")
    wait_for(lambda: "lost the connection" in stage.fleet.logs(), 20)
    wait_for(lambda: stage.fleet.logs().count("consuming the queue 'work'") == 2, 20)
    stage.publish([2])

    stage.await_done([2])
    assert stage.fleet.term(worker) == 0


def test_connections_closed_by_the_operator_come_back(
    make_stage: MakeStage, vhost: Vhost
) -> None:
    stage = make_stage("quorum")
    worker = stage.fleet.start()
    for number in range(3):
        stage.publish([number])
        stage.await_done([number])
        vhost.close_connections("maintenance")
    stage.publish([3])

    stage.await_done([3])
    assert "maintenance" in stage.fleet.logs()
    assert stage.fleet.term(worker) == 0


def test_a_wrong_password_ends_the_start_with_what_to_do(
    make_stage: MakeStage, vhost: Vhost
) -> None:
    stage = make_stage("quorum")
    stage.fleet.config["BROKER_URL"] = vhost.url.replace("guest:guest", "guest:secret")
    worker = stage.fleet.start(ready=False)

    assert worker.wait(30) == 1
    assert "Check the user and the password" in stage.fleet.logs()
    assert "secret" not in stage.fleet.logs()
    assert "Traceback" not in stage.fleet.logs()


def test_a_queue_with_other_arguments_ends_the_start_with_what_to_do(
    make_stage: MakeStage,
) -> None:
    stage = make_stage("quorum")
    stage.publish([1])
    stage.fleet.config["QUEUE_TYPE"] = "classic"
    worker = stage.fleet.start(ready=False)

    assert worker.wait(30) == 1
    assert "'work' with other arguments" in stage.fleet.logs()
    assert "Traceback" not in stage.fleet.logs()


def test_under_a_memory_alarm_publishing_fails_in_time_and_retries_wait(
    make_stage: MakeStage, vhost: Vhost
) -> None:
    """The message was not confirmed: the broker may take it when the alarm is over."""
    stage = make_stage("quorum", RETRY={"min_delay": 2, "jitter": 0}, PUBLISH_TIMEOUT=3)
    worker = stage.fleet.start()
    stage.publish(range(5), do="fail")
    with (
        vhost.server.memory_alarm(),
        pytest.raises(PublishTimeout, match="short of memory"),
    ):
        stage.publish([99])
    stage.await_done(range(5))

    assert stage.fleet.term(worker) == 0
    assert stage.dead() == []


def test_a_handler_that_hogs_the_processor_past_the_heartbeat_is_not_repeated(
    make_stage: MakeStage,
) -> None:
    """Its connection is lost by then; what it did counts on the next one."""
    stage = make_stage("quorum", HEARTBEAT=1, TIMEOUT=60)
    worker = stage.fleet.start()
    stage.publish([1], do="hog", seconds=6)
    stage.publish(range(2, 50))
    stage.await_done(range(1, 50))
    wait_for(lambda: stage.consumers.broker.depth("work") == 0)
    wait_for(lambda: stage.consumers.broker.depth("work.suspects") == 0)

    assert stage.fleet.term(worker) == 0
    assert stage.ledger.counted("start")[1] == 1
    assert "lost the connection" in stage.fleet.logs()
    assert stage.dead() == []


@pytest.mark.long
def test_kafka_is_not_lost_by_a_handler_that_hogs_the_processor(
    make_stage: MakeStage,
) -> None:
    """Its client's threads show that it lives, for longer than a session lasts."""
    stage = make_stage("kafka", TIMEOUT=60)
    worker = stage.fleet.start()
    stage.publish([1], do="hog", seconds=5)
    stage.publish(range(2, 50))
    stage.await_done(range(1, 50))

    assert stage.fleet.term(worker) == 0
    assert set(stage.ledger.counted("start").values()) == {1}
    assert "lost" not in stage.fleet.logs()


def test_a_wrong_password_for_kafka_ends_the_start_with_what_to_do(
    make_stage: MakeStage, own_kafka: Kafka
) -> None:
    stage = make_stage("kafka")
    stage.fleet.config["BROKER_URL"] = (
        f"kafka://guest:secret@localhost:{own_kafka.secured_port}"
    )
    worker = stage.fleet.start(ready=False)

    assert worker.wait(30) == 1
    assert "Check the user" in stage.fleet.logs()
    assert "secret" not in stage.fleet.logs()
    assert "Traceback" not in stage.fleet.logs()


@pytest.mark.long
def test_a_topic_deleted_under_a_worker_is_read_again_once_it_is_declared(
    make_stage: MakeStage, own_kafka: Kafka
) -> None:
    stage = make_stage("kafka")
    worker = stage.fleet.start()
    stage.publish([1])
    stage.await_done([1])
    own_kafka.delete_topics("work")
    wait_for(lambda: "before somebody creates it" in stage.fleet.logs(), 30)
    stage.consumers.broker.declare()
    stage.publish([2])

    stage.await_done([2])
    assert stage.fleet.term(worker) == 0


@pytest.mark.long
def test_a_kafka_that_hangs_for_a_while_is_waited_for(
    make_stage: MakeStage, own_kafka: Kafka
) -> None:
    stage = make_stage("kafka")
    worker = stage.fleet.start()
    stage.publish(range(100))
    stage.await_done(range(50))
    with own_kafka.frozen(seconds=5):  # Longer than a session of the group lasts.
        pass
    stage.publish(range(100, 200))
    stage.await_done(range(200))

    assert stage.fleet.term(worker) == 0
    assert stage.dead() == []
