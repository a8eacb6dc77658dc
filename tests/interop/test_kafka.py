"""``kcat`` and flask_qconsume on Kafka."""

from __future__ import annotations

import json
import typing as t

import pytest

from flask_qconsume import TOMBSTONE

from ..servers import Kafka
from .conftest import RecordingApp
from .conftest import run


@pytest.fixture
def recording_app(
    make_recording_app: t.Callable[..., RecordingApp], kafka_url: str, kafka_prefix: str
) -> RecordingApp:
    return make_recording_app(
        f"{kafka_prefix}billing",
        broker_url=kafka_url,
        transport_options={"partitions": 1},
    )


def test_what_kcat_produces_is_handled(
    recording_app: RecordingApp, kafka: Kafka
) -> None:
    recording_app.declare()
    produce = ["kcat", "-P", "-b", kafka.address, "-t", recording_app.queue]
    run(*produce, "-k", "order-1", "-H", "x-tenant=a", given='{"n": 1}')
    run(*produce, given='{"n": 2}')
    run(*produce, "-Z", "-K", ":", given="order-1:")

    (one, first), (two, second), (nothing, third) = recording_app.consume(3)
    assert (one, two, nothing) == ({"n": 1}, {"n": 2}, None)
    assert (first.key, second.key, third.key) == ("order-1", None, "order-1")
    assert first.headers["x-tenant"] == "a"
    assert (first.id, first.tombstone, third.tombstone) == (None, False, True)
    assert [each.properties["offset"] for each in (first, second, third)] == [0, 1, 2]


def test_a_header_whose_name_is_no_utf_8_makes_a_dead_letter(
    recording_app: RecordingApp, kafka: Kafka
) -> None:
    """confluent_kafka raises for such a header, and crashes at the second call.

    The interpreter specializes a call after many repetitions, and then does not check
    for the error, which is a crash, too. So 200 good messages come first.
    """
    recording_app.declare()
    produce = ["kcat", "-P", "-b", kafka.address, "-t", recording_app.queue]
    run(*produce, "-H", "good=x", given='{"n": 0}\n' * 200)
    run(*produce, "-H", "\udcff=x", "-H", "good=x", given='{"n": 1}')
    run(*produce, given='{"n": 2}')

    handled = [body["n"] for body, _ in recording_app.consume(201)]
    assert (handled.count(0), handled.count(2)) == (200, 1)
    broker = recording_app.worker_app.consumers.broker
    (letter,) = broker.dead_letters(broker.topology.queues[0])
    assert letter.message.raw == b'{"n": 1}'
    assert letter.headers["x-qconsume-reason"] == (
        "unreadable: the name of a header is not UTF-8"
    )


def test_what_we_publish_is_read_by_kcat(
    recording_app: RecordingApp, kafka: Kafka
) -> None:
    id = recording_app.publish({"n": 1}, key="order-1", headers={"x-tenant": "a"})
    recording_app.publish(TOMBSTONE, key="order-1")

    read = ["kcat", "-C", "-b", kafka.address, "-t", recording_app.queue, "-e", "-q"]
    values = run(*read, "-f", "%S %s\\n").splitlines()
    assert json.loads(values[0].split(" ", 1)[1]) == {"n": 1}
    assert values[1].startswith("-1")  # Null, not empty.
    described = run(*read, "-f", "%k %h\\n").splitlines()
    assert described[0].startswith("order-1 ")
    assert "x-tenant=a" in described[0] and f"message-id={id}" in described[0]


def test_kcat_beside_a_worker_is_a_group_of_its_own(
    recording_app: RecordingApp, kafka: Kafka
) -> None:
    """Both get all messages, each at its own pace."""
    recording_app.publish({"n": 1})
    group = f"{recording_app.queue}.watch"
    read = ["-X", "auto.offset.reset=earliest", "-c", "1", "-q", recording_app.queue]
    seen = run("kcat", "-b", kafka.address, "-G", group, *read)
    assert json.loads(seen) == {"n": 1}
    assert [body for body, _ in recording_app.consume(1)] == [{"n": 1}]
