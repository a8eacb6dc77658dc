"""The command line tools of librabbitmq and flask_qconsume on RabbitMQ."""

from __future__ import annotations

import json
import typing as t

from .conftest import run

MakeShop = t.Callable[..., t.Any]


def test_what_amqp_publish_sends_is_handled(
    make_recording_app: MakeShop, rabbitmq_url: str
) -> None:
    recording_app = make_recording_app("billing", broker_url=rabbitmq_url)
    recording_app.declare()
    send = ["amqp-publish", "-u", rabbitmq_url, "-r", "billing", "-b", '{"n": 1}']
    run(*send)
    run(
        *send,
        "-e",
        recording_app.worker_app.consumers.settings.exchange,
        "-p",
        "-H",
        "x-tenant: a",
    )
    run(*send, "-C", "application/json", "-t", "answers")

    found = recording_app.consume(3)
    assert [body for body, _ in found] == [{"n": 1}] * 3
    assert found[1][1].headers["x-tenant"] == "a"
    assert found[2][1].properties["reply_to"] == "answers"


def test_what_we_publish_is_read_by_amqp_get_and_amqp_consume(
    make_recording_app: MakeShop, rabbitmq_url: str
) -> None:
    recording_app = make_recording_app("billing", broker_url=rabbitmq_url)
    for number in range(3):
        recording_app.publish({"n": number})

    got = run("amqp-get", "-u", rabbitmq_url, "-q", "billing")
    eaten = run(
        *("amqp-consume", "-u", rabbitmq_url, "-q", "billing", "-c", "2", "cat")
    )
    assert json.loads(got) == {"n": 0}
    assert eaten.replace(" ", "") == '{"n":1}{"n":2}'
