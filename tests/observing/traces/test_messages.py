"""The spans of messages: names, attributes, parents and links."""

from __future__ import annotations

import logging
import typing as t

import pytest
from opentelemetry import baggage
from opentelemetry import trace
from opentelemetry.context import attach
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind
from opentelemetry.trace import StatusCode

from flask_qconsume import Drop
from flask_qconsume import HandlerTimeout
from flask_qconsume import InvalidMessage
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume import current_message
from flask_qconsume import signals
from flask_qconsume import spawn
from flask_qconsume.handling.events import Listener
from flask_qconsume.observing.tracing import ProcessTracer
from flask_qconsume.observing.tracing import PublishTracer

from ...running.conftest import AppWithWorkers
from ...waiting import hang
from ...waiting import wait_for
from .recorded import Spans
from .recorded import linked_ids
from .recorded import own_id
from .recorded import parent_id
from .recorded import set_provider
from .recorded import trace_id


def tracers_of(listeners: t.Sequence[t.Any]) -> list[t.Any]:
    """Return those listeners of an event that create spans; signals are others."""
    tracers = (ProcessTracer, PublishTracer)
    return [each for each in listeners if isinstance(each.__self__, tracers)]


def test_a_message_has_spans_of_publishing_handling_and_settling(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    @worker_app.qconsume.consumer("bill")
    def bill(body: t.Any) -> None: ...

    worker_app.start()
    with spans.tracer.start_as_current_span("request") as request:
        message_id = worker_app.publish("bill", {"id": 1})
    wait_for(lambda: len(spans.all) == 4)

    publish, process, settle = map(
        spans.one, ("publish qconsume:bill", "process bill", "ack bill")
    )
    assert publish.kind is SpanKind.PRODUCER
    assert parent_id(publish) == request.get_span_context().span_id
    assert process.kind is SpanKind.CONSUMER
    assert parent_id(process) == own_id(publish)
    assert linked_ids(process) == [own_id(publish)]
    assert settle.kind is SpanKind.CLIENT
    assert parent_id(settle) == own_id(process)
    assert {trace_id(span) for span in spans.all} == {trace_id(publish)}
    assert dict(process.attributes or {}) == {
        "messaging.system": "memory",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "bill",
        "messaging.message.id": message_id,
        "messaging.message.body.size": 8,
        "qconsume.consumer": "bill",
        "qconsume.attempt": 1,
        "qconsume.outcome": "ack",
    }
    assert process.status.status_code is StatusCode.UNSET


def test_a_retry_keeps_its_parent_and_links_the_previous_attempt(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    @worker_app.qconsume.consumer("bill")
    def bill(body: t.Any) -> t.Any:
        attempt = current_message.attempt
        if attempt == 1:
            raise ValueError("a card was declined")
        # The first retry is held in this process, the second one by the broker.
        return Retry(1.1) if attempt == 2 else None

    worker_app.config["QCONSUME_RETRY"] = {"min_delay": 0.01, "max_delay": 2}
    worker_app.start()
    worker_app.publish("bill", 1)
    wait_for(lambda: len(spans.named("process bill")) == 3)

    publish = spans.one("publish qconsume:bill")
    first, second, third = spans.named("process bill")
    assert {parent_id(each) for each in (first, second, third)} == {own_id(publish)}
    assert linked_ids(second) == [own_id(publish), own_id(first)]
    assert linked_ids(third) == [own_id(publish), own_id(second)]
    assert (second.links[1].attributes or {})["qconsume.link"] == "previous attempt"
    assert first.status.status_code is StatusCode.ERROR
    assert (first.attributes or {})["error.type"] == "ValueError"
    assert first.events[0].name == "exception"
    assert (second.attributes or {})["qconsume.outcome"] == "retry"
    assert second.status.status_code is StatusCode.UNSET
    assert parent_id(spans.one("retry bill")) == own_id(second)


def test_a_replay_starts_a_new_trace_with_links_to_the_old_one(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    @worker_app.qconsume.consumer("bill", retry={"max_attempts": 2})
    def bill(body: t.Any) -> None:
        if len(worker_app.dead("bill")) or len(spans.named("process bill")) < 3:
            raise ValueError("not now")

    worker_app.start()
    worker_app.publish("bill", 1)
    wait_for(lambda: worker_app.dead("bill"))
    dead = worker_app.consumers.broker.dead_letters(
        worker_app.consumers.topology.queues[0]
    )
    assert dead.take(lambda letter: True, replay=True) == 1
    wait_for(lambda: len(spans.named("process bill")) == 4)

    publish = spans.one("publish qconsume:bill")
    first, last, replayed, again = spans.named("process bill")
    assert trace_id(first) == trace_id(last) == trace_id(publish)
    assert parent_id(replayed) is None
    assert trace_id(replayed) != trace_id(publish)
    assert linked_ids(replayed) == [own_id(publish), own_id(last)]
    assert parent_id(again) == own_id(replayed)
    assert linked_ids(again) == [own_id(publish), own_id(replayed)]
    assert parent_id(spans.one("dead-letter bill")) == own_id(last)


def test_what_a_handler_does_is_a_part_of_the_process_span(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    seen = []

    @worker_app.qconsume.consumer("bill")
    def bill(body: t.Any) -> None:
        seen.append(dict(baggage.get_all()))
        with spans.tracer.start_as_current_span("query"):
            spawn(in_child).get()
        worker_app.publish("mail", 1)

    def in_child() -> None:
        spans.tracer.start_span("in child").end()

    @worker_app.qconsume.consumer("mail")
    def mail(body: t.Any) -> None:
        seen.append(dict(baggage.get_all()))

    worker_app.start()
    worker_app.publish("bill", 1, headers={"baggage": "tenant=acme"})
    wait_for(lambda: "ack mail" in spans.names)

    process = spans.one("process bill")
    assert parent_id(process) == own_id(spans.one("publish qconsume:bill"))
    assert parent_id(spans.one("query")) == own_id(process)
    assert parent_id(spans.one("in child")) == own_id(spans.one("query"))
    assert parent_id(spans.one("publish qconsume:mail")) == own_id(process)
    assert seen == [{"tenant": "acme"}] * 2


def test_nothing_of_a_message_leaks_into_the_next_one(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    @worker_app.qconsume.consumer("bill", concurrency=1)
    def bill(body: t.Any) -> None:
        seen.append(trace.get_current_span().get_span_context().trace_id)
        seen_baggage.append(dict(baggage.get_all()))
        attach(baggage.set_baggage("left", "behind"))  # Never detached, on purpose.

    seen: list[int] = []
    seen_baggage: list[dict[str, object]] = []
    worker_app.start()
    with spans.tracer.start_as_current_span("request"):
        worker_app.publish("bill", 1, headers={"baggage": "tenant=acme"})
    worker_app.publish("bill", 2, headers={"x-foreign": 1})
    wait_for(lambda: len(spans.named("ack bill")) == 2)
    assert len(set(seen)) == 2
    assert seen_baggage[1] == {}


def test_several_messages_published_together_have_a_span_each(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    worker_app.qconsume.consumer("bill")(lambda body: None)
    worker_app.start()
    with spans.tracer.start_as_current_span("request"):
        worker_app.consumers.publish_many([("bill", 1), ("bill", 2)])
    wait_for(lambda: len(spans.named("ack bill")) == 2)

    created = spans.named("create qconsume:bill")
    publish = spans.one("publish qconsume:bill")
    assert publish.kind is SpanKind.CLIENT
    assert linked_ids(publish) == [own_id(each) for each in created]
    assert (publish.attributes or {})["messaging.batch.message_count"] == 2
    assert {parent_id(each) for each in spans.named("process bill")} == {
        own_id(each) for each in created
    }


def test_a_context_that_the_publisher_sets_is_kept(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    worker_app.qconsume.consumer("bill")(lambda body: None)
    worker_app.start()
    given = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    worker_app.publish("bill", 1, headers={"traceparent": given})
    wait_for(lambda: "ack bill" in spans.names)
    assert spans.one("publish qconsume:bill").kind is SpanKind.CLIENT
    process = spans.one("process bill")
    assert trace_id(process) == int("a" * 32, 16)
    assert parent_id(process) == int("b" * 16, 16)


def test_a_failed_publish_has_its_errors_class(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    with pytest.raises(Exception, match="No queue is bound"):
        worker_app.publish("nobody", 1)
    span = spans.one("publish qconsume:nobody")
    assert (span.attributes or {})["error.type"] == "flask_qconsume.errors.Unroutable"
    assert span.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("sampled", ["00", "01"])
def test_an_unsampled_trace_has_no_spans(
    worker_app: AppWithWorkers, spans: Spans, sampled: str
) -> None:
    handled: list[t.Any] = []
    worker_app.qconsume.consumer("bill")(handled.append)
    worker_app.start()
    given = "00-" + "a" * 32 + "-" + "b" * 16 + "-" + sampled
    worker_app.publish("bill", 1, headers={"traceparent": given})
    wait_for(lambda: handled)
    worker_app.workers[0].stop()
    found = {name for name in spans.names if not name.startswith("publish")}
    assert found == (set() if sampled == "00" else {"process bill", "ack bill"})


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": b"\xff\xfe"},
        {"traceparent": ["00-" + "a" * 32 + "-" + "b" * 16 + "-01"] * 3},
        {"traceparent": 7, "tracestate": None, "baggage": {"a": 1}},
        {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
        {"baggage": "=;=,,%ff=%00" * 1000, "tracestate": "\x00=" * 100},
        {"baggage": "ü=ö", "traceparent": "ä"},
    ],
)
def test_wrong_headers_count_as_absent(
    worker_app: AppWithWorkers, spans: Spans, headers: dict[str, t.Any]
) -> None:
    worker_app.qconsume.consumer("bill")(lambda body: None)
    worker_app.start()
    worker_app.publish("bill", 1, headers=headers)
    wait_for(lambda: "ack bill" in spans.names)
    process = spans.one("process bill")
    assert parent_id(process) is None
    assert not process.links


def test_headers_of_other_programs_may_be_bytes_in_any_case(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    worker_app.qconsume.consumer("bill")(lambda body: None)
    worker_app.start()
    given = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
    worker_app.publish(
        "bill", 1, headers={"TraceParent": given, "BAGGAGE": [b"a=1", "b=2"]}
    )
    wait_for(lambda: "ack bill" in spans.names)
    assert trace_id(spans.one("process bill")) == int("a" * 32, 16)


def test_no_body_and_no_text_of_a_refusal_is_in_a_span(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    secret = "s3cret"

    @worker_app.qconsume.consumer("bill")
    def bill(body: t.Any) -> None:
        raise InvalidMessage(f"no {body}", {"field": body})

    worker_app.start()
    worker_app.publish("bill", secret)
    wait_for(lambda: "dead-letter bill" in spans.names)
    assert secret not in "".join(span.to_json() for span in spans.all)
    process = spans.one("process bill")
    assert process.status.status_code is StatusCode.ERROR


def test_long_ids_and_texts_that_cannot_be_written_are_changed(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    @worker_app.qconsume.consumer("bill")
    def bill(body: t.Any) -> None:
        raise ValueError("\udcff" * 5_000)

    worker_app.config["QCONSUME_RETRY"] = {"max_attempts": 1}
    worker_app.start()
    worker_app.publish("bill", 1, id="ü" * 100)
    wait_for(lambda: "dead-letter bill" in spans.names)
    process = spans.one("process bill")
    process.to_json().encode()
    assert len(process.status.description or "") < 1_100


def test_a_rejection_without_an_error_is_an_error_of_the_span(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    worker_app.qconsume.consumer("bill")(lambda body: Reject("no such order"))
    worker_app.start()
    worker_app.publish("bill", 1)
    wait_for(lambda: "dead-letter bill" in spans.names)
    process = spans.one("process bill")
    assert (process.attributes or {})["error.type"] == "Reject"


def test_log_records_about_a_message_belong_to_its_span(
    worker_app: AppWithWorkers, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    seen: dict[str, int] = {}

    class Watch(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            current = trace.get_current_span().get_span_context()
            seen[record.name] = current.span_id
            return True

    @worker_app.qconsume.consumer("bill")
    def bill(body: t.Any) -> None:
        logging.getLogger("shop").warning("billing")
        raise ValueError

    worker_app.config["QCONSUME_RETRY"] = {"max_attempts": 1}
    caplog.handler.addFilter(watch := Watch())
    worker_app.start()
    worker_app.publish("bill", 1)
    wait_for(lambda: "dead-letter bill" in spans.names)
    caplog.handler.removeFilter(watch)
    process = own_id(spans.one("process bill"))
    assert seen["shop"] == seen["flask_qconsume.dispatch"] == process


def test_tracing_is_off_if_the_configuration_says_so(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    handled: list[t.Any] = []
    worker_app.config["QCONSUME_TRACING"] = False
    worker_app.qconsume.consumer("bill")(handled.append)
    worker_app.start()
    worker_app.publish("bill", 1)
    wait_for(lambda: handled)
    assert spans.all == ()
    assert not tracers_of(worker_app.consumers.events.handling)


def test_a_worker_without_an_sdk_creates_no_span(
    worker_app: AppWithWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    worker_app.config["QCONSUME_TRACING"] = True
    worker_app.start()
    assert not tracers_of(worker_app.consumers.events.handling)
    assert "no SDK of OpenTelemetry is set up" in caplog.text


def test_an_sdk_may_be_set_up_in_a_hook_and_after_the_first_publish(
    worker_app: AppWithWorkers,
) -> None:
    spans = Spans(TracerProvider())

    @worker_app.qconsume.consumer("bill")
    def bill(body: t.Any) -> None: ...

    @worker_app.qconsume.before_worker
    def set_up() -> None:
        set_provider(spans.provider)

    worker_app.publish("bill", 1)
    try:
        worker_app.start()
        worker_app.publish("bill", 2)
        wait_for(lambda: len(spans.named("ack bill")) == 2)
        worker_app.workers[0].stop()
        assert not tracers_of(worker_app.consumers.events.handling)
    finally:
        set_provider(None)
    assert len(spans.named("publish qconsume:bill")) == 1
    # The first one was published before the SDK, so it starts a trace of its own.
    assert len(spans.named("process bill")) == 2


def test_an_app_may_keep_its_publishes_out_of_traces(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    worker_app.qconsume.consumer("bill")(lambda body: None)
    with suppress_instrumentation():
        worker_app.publish("bill", 1)
    assert spans.all == ()


def test_former_names_of_attributes_are_added_on_request(
    worker_app: AppWithWorkers, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http,messaging/dup")
    worker_app.qconsume.consumer("bill")(lambda body: None)
    worker_app.start()
    worker_app.publish("bill", 1)
    wait_for(lambda: "ack bill" in spans.names)
    former = [(span.attributes or {}).get("messaging.operation") for span in spans.all]
    assert former == ["publish", "deliver", "settle"]


def test_an_interrupted_attempt_says_so(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    begun: list[t.Any] = []

    @worker_app.qconsume.consumer("bill")
    def bill(body: t.Any) -> None:
        begun.append(body)
        hang()

    worker_app.start()
    worker_app.publish("bill", 1)
    wait_for(lambda: begun)
    worker_app.workers[0].stop(timeout=0)
    process = spans.one("process bill")
    assert (process.attributes or {})["qconsume.outcome"] == "interrupted"
    assert process.status.status_code is StatusCode.UNSET


def test_an_outcome_of_a_class_of_the_apps_is_told_as_its_base(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    class TooLate(Drop):
        pass

    worker_app.qconsume.add_consumer(
        "bill", lambda body: TooLate("an hour"), name="bill"
    )
    worker_app.start()
    worker_app.publish("bill", 1)
    wait_for(lambda: "process bill" in spans.names)
    process = spans.one("process bill")
    assert (process.attributes or {})["qconsume.outcome"] == "drop"


def test_a_publish_that_a_stop_prevents_ends_its_span(
    worker_app: AppWithWorkers, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    """The stop interrupts a listener that waits, before anything is sent."""
    waits: list[t.Any] = []

    class Waits(Listener):
        def publishing(self, messages: t.Any) -> None:
            waits.append(messages)
            hang()

    @worker_app.qconsume.consumer("bill")
    def bill(body: t.Any) -> None:
        worker_app.publish("paid", 1)

    worker_app.qconsume.add_consumer("paid", lambda body: None, name="paid")
    worker_app.start()
    worker_app.publish("bill", 1)
    worker_app.consumers.events.add(Waits())
    wait_for(lambda: waits)
    worker_app.workers[0].stop(timeout=0)
    publish = spans.one("publish qconsume:paid")
    assert (publish.attributes or {})["error.type"] == "interrupted"
    assert "raised an exception" not in caplog.text


@pytest.mark.parametrize("waits", ["processor", "receiver"])
def test_a_time_limit_ends_a_handler_while_its_publish_is_told(
    worker_app: AppWithWorkers, spans: Spans, waits: str
) -> None:
    """For example, while a ``SimpleSpanProcessor`` waits for a collector."""
    ends: list[t.Any] = []

    class Waits(SpanProcessor):
        def on_end(self, span: t.Any) -> None:
            if span.name == "publish qconsume:paid":
                hang()

    @worker_app.qconsume.consumer("bill", timeout=0.1, retry={"max_attempts": 1})
    def bill(body: t.Any) -> None:
        try:
            worker_app.publish("paid", 1)
            ends.append("published")
        except HandlerTimeout as error:
            ends.append(error)
            raise

    def receive(sender: t.Any, message: t.Any) -> None:
        if message.routing_key == "paid":
            hang()

    worker_app.qconsume.add_consumer("paid", lambda body: None, name="paid")
    worker_app.start()
    if waits == "processor":
        spans.provider.add_span_processor(Waits())
    sender = worker_app.app if waits == "receiver" else object()
    with signals.message_published.connected_to(receive, sender):
        worker_app.publish("bill", 1)
        wait_for(lambda: ends and worker_app.dead("bill"))
    assert [type(each) for each in ends] == [HandlerTimeout]


def test_an_sdk_that_is_switched_off_counts_as_none(
    worker_app: AppWithWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    set_provider(TracerProvider())
    try:
        worker_app.start()
        worker_app.consumers.publish("bill", 1, mandatory=False)
    finally:
        set_provider(None)
    assert not tracers_of(worker_app.consumers.events.handling)
    assert not tracers_of(worker_app.consumers.events.publishing)
