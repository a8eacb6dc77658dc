"""Failures reach Sentry once, each with the tags and breadcrumbs of its own message."""

from __future__ import annotations

import logging
import typing as t

import pytest
import sentry_sdk
from flask import Flask
from gevent.event import Event
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from flask_qconsume import HandlerTimeout
from flask_qconsume import InvalidMessage
from flask_qconsume import QConsume
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume import current_message
from flask_qconsume.broker.link import Link
from flask_qconsume.integrations.sentry import report_failures
from flask_qconsume.running import processing
from flask_qconsume.running.worker import Worker
from tests.apps import make_app

from ..running.conftest import AppWithWorkers
from ..running.conftest import worker_app as worker_app
from ..running.outage import publish_killer
from ..waiting import wait_for


class Sent(Transport):
    """A transport that keeps the events instead of sending them."""

    def __init__(self) -> None:
        super().__init__({})
        self.events: list[dict[str, t.Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        event = envelope.get_event()
        if event is not None:
            self.events.append(t.cast(dict[str, t.Any], event))

    def errors(self) -> list[tuple[str, str]]:
        """Return the class and the text of the error of each event."""
        found = [event["exception"]["values"][-1] for event in self.events]
        return [(each["type"], each["value"]) for each in found]


@pytest.fixture
def sent() -> t.Iterator[Sent]:
    transport = Sent()
    sentry_sdk.init(
        "http://key@127.0.0.1:9/1",
        transport=transport,
        release="1.0",  # Else Sentry asks git.
        ignore_errors=[InvalidMessage],
        auto_session_tracking=False,
    )
    yield transport
    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.get_global_scope().set_client(None)


def deliver(
    qconsume: QConsume, app: Flask, body: t.Any = "x", **fields: t.Any
) -> t.Any:
    return qconsume.test_client(app).deliver("bill", body, id="m1", **fields)


def make_shop(handler: t.Any, **options: t.Any) -> tuple[QConsume, Flask]:
    qconsume = QConsume()
    qconsume.add_consumer("billing", handler, name="bill")
    app = make_app(qconsume)
    report_failures(app, **options)
    return qconsume, app


def fail(body: t.Any) -> None:
    raise ValueError(body)


def test_an_event_has_the_tags_and_the_context_of_its_message(sent: Sent) -> None:
    qconsume, app = make_shop(fail)
    deliver(qconsume, app, attempt=2, routing_key="order.created")
    (event,) = sent.events
    assert event["tags"] == {
        "consumer": "bill",
        "queue": "billing",
        "message_id": "m1",
        "attempt": 2,
        "final": False,
    }
    assert event["transaction"] == "bill"
    context = event["contexts"]["message"]
    assert (context["routing_key"], context["bytes"]) == ("order.created", 3)
    assert "body" not in context
    (value,) = event["exception"]["values"]
    assert value["mechanism"] == {"type": "flask_qconsume", "handled": False}
    assert value["stacktrace"]["frames"][-1]["function"] == "fail"


def test_bodies_are_sent_if_asked_for(sent: Sent) -> None:
    qconsume, app = make_shop(fail, bodies=True)
    deliver(qconsume, app, {"id": 7})
    assert sent.events[0]["contexts"]["message"]["body"] == {"id": 7}


def test_each_attempt_is_one_event(sent: Sent) -> None:
    """Also a dead letter, whose error is logged with its traceback."""
    qconsume, app = make_shop(fail)
    for attempt in (1, 6):
        deliver(qconsume, app, attempt=attempt)
    assert [event["tags"]["final"] for event in sent.events] == [False, True]


def test_only_final_failures_are_reported_if_asked_for(sent: Sent) -> None:
    qconsume, app = make_shop(fail, only_final=True)
    for attempt in (1, 5, 6):
        deliver(qconsume, app, attempt=attempt)
    assert [event["tags"]["attempt"] for event in sent.events] == [6]


def test_foreseen_errors_are_not_reported(sent: Sent) -> None:
    def handle(body: str) -> None:
        try:
            raise OSError
        except OSError as error:
            raise (Reject("no") if body == "no" else Retry(5)) from error

    qconsume, app = make_shop(handle)
    for body in ("no", "again"):
        deliver(qconsume, app, body)
    assert sent.events == []


def test_invalid_messages_are_left_out_by_sentrys_own_option(sent: Sent) -> None:
    qconsume, app = make_shop(fail)
    delivered = deliver(qconsume, app, b"{", content_type="application/json")
    assert isinstance(delivered.error, InvalidMessage)
    assert sent.events == []


def test_a_scope_ends_with_its_message(sent: Sent) -> None:
    def handle(body: str) -> None:
        sentry_sdk.set_tag(body, True)
        sentry_sdk.add_breadcrumb(message=body)
        sentry_sdk.capture_message(body)

    qconsume, app = make_shop(handle)
    before = sentry_sdk.get_isolation_scope()
    for body in ("one", "two"):
        deliver(qconsume, app, body)
    assert sentry_sdk.get_isolation_scope() is before
    sentry_sdk.capture_message("outside")
    *inside, outside = sent.events
    for event, own, other in zip(inside, ("one", "two"), ("two", "one"), strict=True):
        assert event["tags"]["consumer"] == "bill"
        assert own in event["tags"] and other not in event["tags"]
        assert [each["message"] for each in event["breadcrumbs"]["values"]] == [own]
    assert "consumer" not in outside.get("tags", {})


def test_views_and_messages_of_one_app_report_their_own_errors(sent: Sent) -> None:
    """Sentry's integration of Flask is on, and reports the view's error."""
    qconsume, app = make_shop(fail)
    app.testing = False

    @app.get("/")
    def index() -> None:
        deliver(qconsume, app, "message")
        raise KeyError("view")

    app.test_client().get("/")
    assert sent.errors() == [("ValueError", "message"), ("KeyError", "'view'")]
    message, view = sent.events
    assert message["tags"]["consumer"] == "bill"
    assert "consumer" not in view.get("tags", {})
    assert view["transaction"] == "index"


@pytest.fixture
def workers() -> t.Iterator[list[Worker]]:
    made: list[Worker] = []
    yield made
    for worker in made:
        worker.stop(timeout=0)


def test_messages_that_fail_at_once_keep_their_tags_and_breadcrumbs(
    sent: Sent, workers: list[Worker]
) -> None:
    count, started, go = 8, [], Event()
    qconsume = QConsume()
    logger = logging.getLogger("shop")
    logger.setLevel("INFO")

    @qconsume.consumer("billing", concurrency=count, retry={"max_attempts": 1})
    def bill(order: int) -> None:
        sentry_sdk.set_tag("order", order)
        logger.info("order %s", order)
        started.append(order)
        if len(started) == count:
            go.set()
        go.wait()
        sentry_sdk.add_breadcrumb(message=f"late {order}")
        raise ValueError(current_message.id)

    app = make_app(qconsume)
    report_failures(app)
    orders = [("billing", number) for number in range(count)]
    ids = app.extensions["qconsume"].publish_many(orders)
    workers.append(Worker(app))
    workers[0].start()
    wait_for(lambda: len(sent.events) >= count)
    assert workers[0].stop()

    assert sorted(text for _, text in sent.errors()) == sorted(ids)
    for event, (_, text) in zip(sent.events, sent.errors(), strict=True):
        order = event["tags"]["order"]
        assert event["tags"]["message_id"] == text == ids[order]
        crumbs = [each["message"] for each in event["breadcrumbs"]["values"]]
        assert crumbs == [f"order {order}", f"late {order}"]


def test_an_abandoned_handler_is_reported_with_its_message(
    sent: Sent, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "OVERDUE_SECONDS", 0.05)
    monkeypatch.setattr(Link, "keep_alive_interval", 0.05)
    qconsume, release = QConsume(), Event()

    @qconsume.consumer("billing", timeout=0.05, retry={"max_attempts": 1})
    def bill(order: t.Any) -> None:
        while not release.is_set():
            try:
                release.wait()
            except HandlerTimeout:
                continue

    app = make_app(qconsume)
    report_failures(app)
    id = app.extensions["qconsume"].publish("billing", 1)
    workers.append(Worker(app))
    workers[0].start()

    wait_for(lambda: sent.events)
    release.set()
    wait_for(lambda: workers[0].busy == 0)
    (event,) = sent.events
    assert event["exception"]["values"][-1]["type"] == "HandlerTimeout"
    assert event["tags"]["message_id"] == id


@pytest.mark.parametrize("only_final", [False, True])
def test_a_message_that_kills_its_processes_is_reported(
    sent: Sent, worker_app: AppWithWorkers, only_final: bool
) -> None:
    """It becomes a dead letter without a further attempt, so there is no error."""
    worker_app.qconsume.add_consumer("billing", fail, name="bill")
    published = publish_killer(worker_app, "billing")
    report_failures(worker_app.app, only_final=only_final)
    worker_app.start()
    wait_for(lambda: sent.events and worker_app.dead("billing"))
    (event,) = sent.events
    assert event["message"].startswith("Dead letter: its process died 2 times")
    assert event["level"] == "error"
    assert event["tags"]["message_id"] == published
    assert event["tags"]["final"] is True
    assert event["transaction"] == "bill"
