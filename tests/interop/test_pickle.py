"""Bodies pickled by kombu are never executed, and compressed bodies are limited."""

from __future__ import annotations

import importlib
import os
import pathlib
import typing as t

import kombu
import pytest

from ..waiting import wait_for
from .conftest import RecordingApp

pytestmark = pytest.mark.broker

#: Fixtures of brokers' URLs, and the module that makes kombu know the scheme.
PLACES = {
    "rabbitmq": ("amqp://", ""),
    "redis": ("redis://", ""),
    "redis-streams": ("redis-streams://", "redis_streams"),
    "kafka": ("kafka://", "kafka"),
}

#: A megabyte, compressed to a kilobyte; kombu would decompress it.
BOMB = {"laughs": "ha" * 500_000}


class Touch:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path

    def __reduce__(self) -> t.Any:
        return os.mkdir, (str(self._path),)


@pytest.fixture(params=PLACES)
def recording_app(
    request: pytest.FixtureRequest, make_recording_app: t.Callable[..., RecordingApp]
) -> RecordingApp:
    kind = request.param.partition("-")[0]
    scheme, transport = PLACES[request.param]
    if transport:
        importlib.import_module(f"flask_qconsume.transports.{transport}")
    url = request.getfixturevalue(f"{kind}_url")
    prefix = request.getfixturevalue("kafka_prefix") if kind == "kafka" else ""
    return make_recording_app(
        f"{prefix}billing",
        broker_url=scheme + url.partition("://")[2],
        max_message_size=100_000,
        transport_options={"partitions": 1} if kind == "kafka" else {},
    )


@pytest.mark.deadline(180)
def test_nothing_that_kombu_serialized_is_run_or_blown_up(
    recording_app: RecordingApp, tmp_path: pathlib.Path
) -> None:
    made = tmp_path / "made"
    recording_app.declare()
    app = recording_app.worker_app.consumers
    with kombu.Connection(
        app.settings.broker_url, transport_options=app.settings.transport_options
    ) as connection:
        producer = connection.Producer()

        def send(body: t.Any, **options: t.Any) -> None:
            producer.publish(
                body, exchange="", routing_key=recording_app.queue, **options
            )

        send(Touch(made), serializer="pickle")
        send(Touch(made), serializer="pickle", compression="zlib")
        send(b"!!python/object/apply:os.mkdir [x]", content_type="application/x-yaml")
        send(BOMB, compression="zlib")
        send({"n": 2})

    worker = recording_app.worker_app.start()
    try:
        wait_for(lambda: len(recording_app.handled) == 1, 60)
        wait_for(
            lambda: len(recording_app.worker_app.dead(recording_app.queue)) == 4, 60
        )
    finally:
        worker.stop()
    assert [body for body, _ in recording_app.handled] == [{"n": 2}]
    assert not made.exists()
    dead = recording_app.worker_app.dead(recording_app.queue)
    reasons = [each.headers["x-qconsume-reason"] for each in dead]
    assert sum("is not accepted" in reason for reason in reasons) == 3, reasons
    assert sum("the body grows to more than" in each for each in reasons) == 1, reasons
