"""Content of messages cannot forge log lines or control a terminal."""

from __future__ import annotations

import logging
import typing as t

import pytest
from flask import Flask

from flask_qconsume import PublishError
from flask_qconsume import QConsume
from flask_qconsume import QConsumeError
from flask_qconsume import Reject
from flask_qconsume import current_message
from flask_qconsume.running.worker import Worker
from flask_qconsume.text import find_name_problem

from ..apps import make_app
from ..brokers.rabbitmq.rabbit import raw_channel
from ..waiting import wait_for
from .commands import invoke

#: A forged log line, terminal sequences of both kinds, and a change of direction.
EVIL = "x\r\n2026-01-01 CRITICAL forged\x1b[2J\x1b]0;t\x07\x9b31m\u2028\u202ey\x00z"

URLS = [
    pytest.param(name, marks=pytest.mark.broker)
    for name in ("redis", "redis-streams", "rabbitmq", "kafka")
]


@pytest.fixture
def logged() -> t.Iterator[list[str]]:
    """All log lines, as a formatter writes them."""
    lines: list[str] = []

    class KeepLines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = KeepLines()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(handler)
    root.setLevel(before)


def assert_harmless(text: str) -> None:
    """Check that no line is forged, and that all characters are printable."""
    forged = [line for line in text.split("\n") if line.startswith("2026-01-01")]
    assert forged == []
    wrong = {c for c in text if not c.isprintable() and c != "\n"}
    assert wrong == set(), text


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest) -> str:
    kind, _, layout = request.param.partition("-")
    found: str = request.getfixturevalue(f"{kind}_url")
    return found.replace("redis:", "redis-streams:") if layout else found


def create_app_at(url: str, prefix: str) -> Flask:
    """Create an app whose handler puts the message into errors of several kinds."""
    qconsume = QConsume()

    @qconsume.consumer(f"{prefix}work", retry={"max_attempts": 1})
    def work(body: t.Any) -> None:
        if body == "reject":
            raise Reject(EVIL)
        if body == "chain":
            try:
                raise KeyError(EVIL)
            except KeyError as error:
                raise RuntimeError(EVIL) from error
        raise ValueError(EVIL, dict(current_message.headers))

    return make_app(qconsume, broker_url=url, heartbeat=1)


@pytest.mark.broker
@pytest.mark.deadline(240)
def test_a_failed_message_is_logged_without_forged_lines(
    url: str, request: pytest.FixtureRequest, logged: list[str]
) -> None:
    prefix = request.getfixturevalue("kafka_prefix") if "kafka" in url else ""
    app = create_app_at(url, prefix)
    found = app.extensions["qconsume"]
    worker = Worker(app)
    worker.start()
    options = {"id": EVIL, "headers": {EVIL: EVIL, "fine": [EVIL, {EVIL: EVIL}]}}
    typed = {**options, "content_type": EVIL}
    key = f"{prefix}work"
    found.publish_many(
        [(key, body, options) for body in ("reject", "chain", "fails")]
        + [(key, b"\x1b[2J", typed), (key, b"{\x1b[2J", options)]
    )
    plan = found.topology.queue(key)
    wait_for(lambda: found.broker.dead_letters(plan).count() == 5, 90)
    assert worker.stop(10)

    assert_harmless("\n".join(logged))
    assert any("forged" in line for line in logged)
    for command in (["list"], ["show"], ["list", "--json"], ["show", "--json"]):
        shown = invoke(app, "dead-letters", *command)
        assert shown.exit_code == 0
        assert_harmless(shown.output)
        assert "forged" in shown.output
    found.close()


@pytest.mark.broker
@pytest.mark.parametrize(
    ("key", "options"),
    [
        (EVIL, {}),
        ("work", {"exchange": EVIL}),
        ("work", {"exchange": "", "content_type": EVIL}),
        (EVIL, {"exchange": ""}),
        ("work", {"headers": {f"x-qconsume-{EVIL}": 1}}),
        ("work", {"headers": {EVIL: object()}}),
        ("work", {"priority": EVIL}),
        (EVIL * 20, {}),
        (EVIL, {"delay": 1}),
        (EVIL, {"headers": {"x": "y" * 200_000}}),
    ],
    # A longer id would not fit into the environment of a process.
    ids=lambda value: str(value)[:40],
)
def test_a_publish_error_is_one_line(
    url: str, key: str, options: dict[str, t.Any], logged: list[str]
) -> None:
    found = create_app_at(url, "").extensions["qconsume"]
    try:
        found.publish(key, {"a": 1}, **options)
    except QConsumeError as error:
        assert_harmless(str(error))
        assert "\n" not in str(error)
    finally:
        found.close()
    assert_harmless("\n".join(logged))


def test_an_unknown_option_is_named_in_one_line() -> None:
    found = create_app_at("memory://", "").extensions["qconsume"]
    with pytest.raises(PublishError) as caught:
        found.publish_many([("work", {"a": 1}, {EVIL: 1})])
    assert "forged" in str(caught.value)
    assert_harmless(str(caught.value))
    assert "\n" not in str(caught.value)
    found.close()


@pytest.mark.broker
def test_an_error_of_rabbitmq_with_a_hostile_name_is_one_line(
    rabbitmq_url: str, logged: list[str]
) -> None:
    """RabbitMQ names the queue in its error about other arguments."""
    # Registration refuses control characters, but not marks of direction.
    name = "".join(c for c in EVIL if not find_name_problem(c))
    assert "\u202e" in name
    with raw_channel(rabbitmq_url) as channel:
        channel.queue_declare(name, durable=False, auto_delete=True)
    qconsume = QConsume()
    qconsume.add_consumer(name, print, name="work")
    app = make_app(qconsume, broker_url=rabbitmq_url)
    result = invoke(app, "declare")
    assert result.exit_code == 1
    assert_harmless(result.output)
    assert_harmless("\n".join(logged))
    app.extensions["qconsume"].close()
