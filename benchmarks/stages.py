"""The cost of each stage of handling a message: ``python -m benchmarks.stages``.

Prints each stage's processor time in microseconds, the least of several repeats, and
its ratio to a calibrating loop that is measured beside it. The ratio hardly depends on
the machine and its load. The stage "whole way" is a worker on the memory broker:
reader, handlers, dispatch and settlement.
"""

from __future__ import annotations

import dataclasses
import gc
import statistics
import struct
import time
import typing as t
from collections.abc import Callable

from .contenders.us import JSON
from .contenders.us import app_of
from .job import BODY
from .job import Job

_JOB = Job("memory", "memory://", "bench", 1_000)

#: Prepares a stage for a number of messages; returns the function to be measured.
Stage = Callable[[int], Callable[[], None]]


def calibrate(count: int) -> Callable[[], None]:
    """A loop of plain Python, with which all stages are compared."""

    def run() -> None:
        for _ in range(count):
            table = {}
            for number in range(20):
                table[number] = str(number)

    return run


def use_app_context(count: int) -> Callable[[], None]:
    """Push and pop Flask's app context."""
    app = app_of(_JOB, None)

    def run() -> None:
        for _ in range(count):
            with app.app_context():
                pass

    return run


def read_delivery(count: int) -> Callable[[], None]:
    """Convert the bytes of a delivery from RabbitMQ to a message."""
    from flask_qconsume.brokers.rabbitmq.amqp import frames as frames
    from flask_qconsume.brokers.rabbitmq.incoming import convert_delivery

    data = _encode_delivery()

    def run() -> None:
        for _ in range(count):
            delivery = frames.parse_delivery_at(data, 0, 1)
            assert delivery is not None
            convert_delivery(delivery, "bench")

    return run


def _encode_delivery() -> bytes:
    import amqp

    from flask_qconsume.brokers.rabbitmq.amqp import frames as frames

    names = b"\x00\x3c\x00\x3c\x08qconsume" + struct.pack(">QB", 7, 0)
    headers = {
        "x-qconsume-published-at": 1_800_000_000.5,
        "x-qconsume-exchange": "qconsume",
        "x-qconsume-routing-key": "bench",
    }
    message = amqp.Message(
        b"",
        content_type="application/json",
        content_encoding="utf-8",
        application_headers=headers,
        delivery_mode=2,
        message_id="6b1bf0b4-70a3-4b3c-8f4c-9c2f5a3d6c1e",
        timestamp=1_800_000_000,
    )
    properties = message._serialize_properties()
    method = names + b"\x08qconsume\x05bench"
    return b"".join(
        frames.build_publish(1, method, properties, BODY, frame_max=131_072)
    )


def decode_body(count: int) -> Callable[[], None]:
    """Decode the body of a message."""
    from flask_qconsume.handling.payload import decode

    consumer, message = _consumer(), _message()

    def run() -> None:
        for _ in range(count):
            decode(message, consumer.decoders, consumer.max_message_size)

    return run


def dispatch_message(count: int) -> Callable[[], None]:
    """Dispatch a message: app context, decoding, time limit, an empty handler."""
    from flask_qconsume.handling.dispatch import dispatch
    from flask_qconsume.running import time_limits as limits

    app = app_of(_JOB, None)
    consumer = app.extensions["qconsume"].consumers["handle"]
    message = _message()
    # Before commit 2d41f1c, each time limit had a timer of its own.
    limit = getattr(limits, "TimeLimits", lambda: limits.TimeLimit)()

    def run() -> None:
        for _ in range(count):
            dispatch(app, consumer, message, limit=limit)

    return run


def run_worker(count: int, job: Job = _JOB) -> Callable[[], None]:
    """Run a worker on the memory broker until it has handled all messages."""
    from flask_qconsume.running.worker import Worker

    countdown = _Countdown(count)
    app = app_of(job, countdown)
    messages = [(_JOB.queue, BODY, JSON)] * count
    app.extensions["qconsume"].publish_many(messages)
    worker = Worker(app)

    def run() -> None:
        worker.start()
        countdown.over.wait()
        worker.stop()

    return run


def whole_with_metrics(count: int) -> Callable[[], None]:
    """The same, counted and measured."""
    return run_worker(count, dataclasses.replace(_JOB, metrics=True))


def publish_messages(count: int, job: Job = _JOB) -> Callable[[], None]:
    """Publish messages one by one to the memory broker: checks, circuit, signals."""
    publisher = app_of(job, None).extensions["qconsume"]
    publisher.publish(_JOB.queue, BODY, **JSON)

    def run() -> None:
        for _ in range(count):
            publisher.publish(_JOB.queue, BODY, **JSON)

    return run


def publishing_with_metrics(count: int) -> Callable[[], None]:
    """The same, counted and measured."""
    return publish_messages(count, dataclasses.replace(_JOB, metrics=True))


def write_frames(count: int) -> Callable[[], None]:
    """Convert the arguments of ``publish`` to the frames for RabbitMQ."""
    from flask_qconsume.broker.compose import compose
    from flask_qconsume.broker.properties import encode_outgoing
    from flask_qconsume.brokers.rabbitmq.pending_publish import PendingPublish

    def run() -> None:
        for _ in range(count):
            message = compose("shop", _JOB.queue, BODY, **JSON)
            names = {"exchange": "shop", "routing_key": _JOB.queue}
            PendingPublish(
                encode_outgoing(message), message.body, **names
            ).build_frames(1, 131_072)

    return run


class _Countdown:
    """Sets an event when a number of messages were handled."""

    def __init__(self, count: int) -> None:
        from gevent.event import Event

        self.left = count
        self.over = Event()

    def one(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.over.set()


def _consumer() -> t.Any:
    return app_of(_JOB, None).extensions["qconsume"].consumers["handle"]


def _message() -> t.Any:
    from flask_qconsume import Message

    return Message(BODY, "bench", id="1", content_type="application/json")


STAGES: dict[str, Stage] = {
    "calibrating loop": calibrate,
    "app context": use_app_context,
    "RabbitMQ's frames to a message": read_delivery,
    "decoding": decode_body,
    "dispatch, both included": dispatch_message,
    "whole way, memory broker": run_worker,
    "the same with metrics": whole_with_metrics,
    "publishing, memory broker": publish_messages,
    "publishing with metrics": publishing_with_metrics,
    "what is published to frames": write_frames,
}


def measure(stage: Stage, count: int) -> float:
    """Return the microseconds of processor time per message."""
    run = stage(count)
    gc.collect()
    began = time.process_time()
    run()
    return (time.process_time() - began) / count * 1e6


def main(repeats: int = 7, count: int = 4_000) -> None:
    from gevent import monkey

    monkey.patch_all()
    print(f"{'stage':<32}{'µs':>8}{'ratio':>8}")
    for name, stage in STAGES.items():
        times = [
            (measure(stage, count), measure(calibrate, count)) for _ in range(repeats)
        ]
        ratio = statistics.median(
            stage_time / loop_time for stage_time, loop_time in times
        )
        least = min(stage_time for stage_time, _ in times)
        print(f"{name:<32}{least:8.1f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
