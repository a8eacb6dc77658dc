"""A consumer that reads another consumer's dead letters, where these are a queue."""

from __future__ import annotations

import kombu
import pytest

from flask_qconsume import QConsume
from flask_qconsume import Reject
from flask_qconsume import current_message
from flask_qconsume.broker import headers as own_headers
from flask_qconsume.extension import get_app_consumers
from flask_qconsume.message import Message
from flask_qconsume.running.worker import Worker

from ..apps import make_app
from ..waiting import wait_for


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_another_consumer_may_read_them_on_purpose(
    rabbitmq_url: str, kind: str
) -> None:
    """Its own dead letters have their own queue, and a replay returns to its queue."""
    seen: list[tuple[str, int, str | None]] = []
    qconsume = QConsume()

    def reject(body: str) -> None:
        raise Reject(f"{body} is bad")

    def look(body: str) -> None:
        reason = current_message.headers.get(own_headers.REASON)
        seen.append((body, current_message.attempt, reason))
        if body == "awful":
            raise Reject("not here either")

    qconsume.add_consumer("bill", reject, name="bill")
    letters = kombu.Queue("bill.dead", no_declare=True)
    qconsume.add_consumer(letters, look, name="look")
    app = make_app(qconsume, broker_url=rabbitmq_url, queue_type=kind)
    consumers = get_app_consumers(app)
    left = consumers.broker.dead_letters(consumers.topology.queue("bill.dead"))
    worker = Worker(app)
    worker.start()
    try:
        consumers.publish("bill", "awful")
        consumers.publish("bill", "poor", expires=60)
        wait_for(lambda: left.count() == 1 and len(seen) == 2)
        assert sorted(seen) == [
            ("awful", 1, "awful is bad"),
            ("poor", 1, "poor is bad"),
        ]
        assert consumers.broker.depth("bill.dead.dead") == 1
        (letter,) = left
        assert letter.headers[own_headers.REASON] == "not here either"
        assert letter.headers[own_headers.QUEUE] == "bill.dead"
        wait_for(lambda: left.count() == 1)
        assert left.take(lambda each: True, replay=True) == 1
        wait_for(lambda: len(seen) == 3 and left.count() == 1)
        # As after any replay, the headers of the failure are gone.
        assert seen[2] == ("awful", 1, None)
    finally:
        assert worker.stop()
        consumers.close()


def test_a_dead_letter_begins_anew_for_whoever_reads_it() -> None:
    headers = {own_headers.ATTEMPT: 6, own_headers.EXPIRES_AT: 1.0}
    message = Message(b"", "bill", attempt=6, headers=headers)
    found = own_headers.make_dead_letter_headers(
        message, "bill", "bill", "6 of 6", None, 9.5
    )
    assert found[own_headers.ATTEMPTS] == 6
    assert not {own_headers.ATTEMPT, own_headers.EXPIRES_AT} & {*found}


def test_on_kafka_they_are_a_topic_like_any_other(
    kafka_url: str, kafka_prefix: str
) -> None:
    seen: list[tuple[str, int, str]] = []
    qconsume = QConsume()

    def reject(body: str) -> None:
        raise Reject(f"{body} is bad")

    def look(body: str) -> None:
        reason = current_message.headers[own_headers.REASON]
        seen.append((body, current_message.attempt, reason))

    qconsume.add_consumer("bill", reject, name="bill")
    letters = kombu.Queue(
        f"{kafka_prefix}look",
        kombu.Exchange("qconsume", "topic"),
        routing_key=f"_qconsume.{kafka_prefix}bill.dead",
    )
    qconsume.add_consumer(letters, look, name="look")
    app = make_app(qconsume, broker_url=kafka_url, queue_prefix=kafka_prefix)
    consumers = get_app_consumers(app)
    kept = consumers.broker.dead_letters(consumers.topology.queues[0])
    worker = Worker(app)
    worker.start()
    try:
        consumers.publish("bill", "awful")
        wait_for(lambda: seen, timeout=30)
        assert seen == [("awful", 1, "awful is bad")]
        # Reading does not remove them: they can still be listed and replayed.
        assert kept.count() == 1
    finally:
        assert worker.stop()
        consumers.close()
