"""The message that is handled, on every log record: of which logger it may be."""

from __future__ import annotations

import logging
import os
import pathlib
import pickle
import sys
import threading
import typing as t
from collections.abc import Iterator

import gevent
import pytest
from flask import Flask
from gevent.event import Event
from gevent.threadpool import ThreadPool

from flask_qconsume import HandlerTimeout
from flask_qconsume import QConsume
from flask_qconsume import Reject
from flask_qconsume import signals
from flask_qconsume import spawn
from flask_qconsume.broker.link import Link
from flask_qconsume.observing.log_context import EMPTY
from flask_qconsume.observing.log_context import LogContext
from flask_qconsume.observing.log_context import install_log_context
from flask_qconsume.observing.log_context import remove_log_context
from flask_qconsume.running import processing
from tests.apps import make_app
from tests.waiting import wait_for

from ..harness.scripts import run_script
from ..running.conftest import AppWithWorkers

LIBRARY = logging.getLogger("cards.visa")

#: What a record says, in one line.
FORMAT = (
    "%(message)s: %(qconsume_consumer)s %(qconsume_message_id)s"
    " %(qconsume_attempt)d %(qconsume_correlation_id)s"
)


@pytest.fixture(autouse=True)
def factory() -> Iterator[t.Callable[..., logging.LogRecord]]:
    """The record factory before the test, which the test may change."""
    before = logging.getLogRecordFactory()
    remove_log_context()
    yield logging.getLogRecordFactory()
    logging.setLogRecordFactory(before)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    caplog.set_level("DEBUG")
    return Log(caplog)


class Log:
    """All records so far."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self._formatter = logging.Formatter(FORMAT)

    @property
    def records(self) -> list[logging.LogRecord]:
        return self._caplog.records

    def find(self, text: str) -> logging.LogRecord:
        """Return the one record whose message begins with a text."""
        found = [r for r in self.records if r.getMessage().startswith(text)]
        assert len(found) == 1, (text, [r.getMessage() for r in self.records])
        return found[0]

    def lines(self, *loggers: str) -> list[str]:
        """Return what a text format shows of the records of some loggers."""
        return [
            self._formatter.format(record)
            for record in self.records
            if record.name in loggers
        ]


def context_of(record: logging.LogRecord) -> dict[str, t.Any]:
    return {name: getattr(record, name) for name in EMPTY}


def test_every_step_of_a_message_has_its_context(log: Log) -> None:
    """Hooks, schema, handler, error handlers, our own lines, and the app's teardown."""
    qconsume = QConsume()
    say = LIBRARY.info

    class Schema:
        def load(self, body: t.Any) -> t.Any:
            say("schema")
            return body

    @qconsume.consumer("bill", name="bill", schema=Schema())
    def bill(body: t.Any) -> None:
        say("handler")
        raise ValueError("no card")

    qconsume.before_message(lambda: say("before"))
    qconsume.after_message(lambda outcome: say("after"))
    qconsume.teardown_message(lambda error: say("teardown"))
    qconsume.message_errorhandler(ValueError)(lambda error: say("error handler"))
    app = make_app(qconsume)

    @app.teardown_appcontext
    def close(error: BaseException | None) -> None:
        say("app context")

    def receive(sender: Flask, **_: t.Any) -> None:
        say("signal")

    with signals.message_retried.connected_to(receive, app):
        qconsume.test_client(app).deliver(
            "bill", {}, id="m-1", attempt=2, properties={"correlation_id": "order-7"}
        )
    steps = ["before", "schema", "handler", "error handler", "after", "teardown"]
    steps += ["app context", "signal"]
    context = "bill m-1 2 order-7"
    assert log.lines("cards.visa") == [f"{step}: {context}" for step in steps]
    ours = log.lines("flask_qconsume.dispatch")
    assert len(ours) == 1
    assert ours[0].startswith("bill: message m-1 failed (attempt 2 of 6), again in ")
    assert ours[0].splitlines()[0].endswith(f": {context}")


def test_the_line_about_a_dead_letter_has_the_context(log: Log) -> None:
    qconsume = QConsume()

    @qconsume.consumer("bill", name="bill")
    def bill(body: t.Any) -> None:
        raise Reject("stolen card")

    client = qconsume.test_client(make_app(qconsume))
    client.deliver("bill", {}, id="m-1")
    record = log.find("bill: message m-1 is a dead letter")
    assert context_of(record)["qconsume_message_id"] == "m-1"


def test_outside_of_a_message_the_values_are_empty(log: Log) -> None:
    qconsume = QConsume()
    qconsume.add_consumer("bill", lambda body: LIBRARY.info("in"), name="bill")
    app = make_app(qconsume)
    LIBRARY.info("before")
    qconsume.test_client(app).deliver("bill", {}, id="m-1")
    LIBRARY.info("after")
    assert log.lines("cards.visa") == ["before:   0 ", "in: bill m-1 1 ", "after:   0 "]


def test_each_greenlet_of_a_worker_logs_its_own_message(log: Log) -> None:
    """Also its children, and the libraries that it calls, while it waits."""
    worker_app = AppWithWorkers()

    def talk(number: int, step: str) -> None:
        LIBRARY.info("%s %s", step, number)
        gevent.sleep(0)
        LIBRARY.info("%s-again %s", step, number)

    @worker_app.qconsume.consumer("bill", name="bill", concurrency=8)
    def bill(number: int) -> None:
        child = spawn(talk, number, "child")
        talk(number, "handler")
        child.get()

    ids = {worker_app.publish("bill", number): number for number in range(40)}
    worker = worker_app.start()
    try:
        wait_for(lambda: len(log.lines("cards.visa")) == 4 * 40)
    finally:
        assert worker.stop()
    steps = ("child", "child-again", "handler", "handler-again")
    assert sorted(log.lines("cards.visa")) == sorted(
        f"{step} {number}: bill {id} 1 " for id, number in ids.items() for step in steps
    )


def test_an_abandoned_handler_is_logged_with_its_message(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is logged in another greenlet than the handler's."""
    monkeypatch.setattr(processing, "OVERDUE_SECONDS", 0.05)
    monkeypatch.setattr(Link, "keep_alive_interval", 0.05)
    worker_app, release = AppWithWorkers(), Event()

    @worker_app.qconsume.consumer("bill", timeout=0.05, retry={"max_attempts": 1})
    def bill(body: t.Any) -> None:
        while not release.is_set():
            try:
                release.wait()
            except HandlerTimeout:
                continue

    id = worker_app.publish("bill", 1)
    worker = worker_app.start()
    wait_for(lambda: any("ignores its time limit" in text for text in _messages(log)))
    release.set()
    assert worker.stop()
    record = log.find(f"bill: the handler of message {id}")
    assert context_of(record)["qconsume_message_id"] == id


def _messages(log: Log) -> list[str]:
    return [record.getMessage() for record in log.records]


def test_other_threads_and_greenlets_have_no_context(log: Log) -> None:
    qconsume = QConsume()

    @qconsume.consumer("bill", name="bill")
    def bill(body: t.Any) -> None:
        pool = ThreadPool(1)
        pool.apply(LIBRARY.info, ("native thread",))
        pool.kill()
        thread = threading.Thread(target=LIBRARY.info, args=("thread",))
        thread.start()
        thread.join()
        gevent.spawn(LIBRARY.info, "greenlet").join()

    qconsume.test_client(make_app(qconsume)).deliver("bill", {})
    assert log.lines("cards.visa") == [
        "native thread:   0 ",
        "thread:   0 ",
        "greenlet:   0 ",
    ]


@pytest.mark.process
def test_a_fork_of_a_handler_goes_on_with_its_context(tmp_path: pathlib.Path) -> None:
    qconsume, said = QConsume(), tmp_path / "said"

    @qconsume.consumer("bill", name="bill")
    def bill(body: t.Any) -> None:
        child = os.fork()
        if child == 0:
            record = logging.getLogRecordFactory()("x", 20, "", 0, "hi", (), None)
            said.write_text(logging.Formatter(FORMAT).format(record))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0

    client = qconsume.test_client(make_app(qconsume))
    assert client.deliver("bill", {}, id="m-1").error is None
    assert said.read_text() == "hi: bill m-1 1 "


HOSTILE = {
    "a line break": (
        "1\n2026-01-01 INFO all is well",
        r"1\n2026-01-01 INFO all is well",
    ),
    "a terminal's escape": ("\x1b[2J\r\x00", r"\x1b[2J\r\x00"),
    "separators": ("a\u2028b\x85", r"a\u2028b\x85"),
    "a surrogate": ("\ud800", r"\ud800"),
    "no id": (None, ""),
    "a number": (7, "7"),
    "no text": ({"a": 1}, ""),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_ids_of_foreign_messages_are_escaped(log: Log, case: str) -> None:
    given, shown = HOSTILE[case]
    qconsume = QConsume()
    qconsume.add_consumer("bill", lambda body: LIBRARY.info("in"), name="bill")
    client = qconsume.test_client(make_app(qconsume))
    client.deliver("bill", {}, id=given, properties={"correlation_id": given})
    assert log.lines("cards.visa") == [f"in: bill {shown} 1 {shown}"]


def test_long_ids_are_shortened(log: Log) -> None:
    qconsume = QConsume()
    qconsume.add_consumer("bill", lambda body: LIBRARY.info("in"), name="bill")
    client = qconsume.test_client(make_app(qconsume))
    long = "x" * 10_000_000
    client.deliver("bill", {}, id=long, properties={"correlation_id": long})
    assert len(log.lines("cards.visa")[0]) < 500


def test_an_extra_of_the_app_may_have_the_names_without_prefix(log: Log) -> None:
    """``logging`` raises a ``KeyError`` for an extra that overwrites an attribute."""
    names = [name.removeprefix("qconsume_") for name in EMPTY]
    extra = {name: f"the app's {name}" for name in [*names, "queue", "otelTraceID"]}
    qconsume = QConsume()

    @qconsume.consumer("bill", name="bill")
    def bill(body: t.Any) -> None:
        LIBRARY.info("in", extra=extra)

    client = qconsume.test_client(make_app(qconsume))
    assert client.deliver("bill", {}, id="m-1").error is None
    record = log.find("in")
    assert {name: getattr(record, name) for name in extra} == extra
    assert context_of(record)["qconsume_message_id"] == "m-1"


def test_a_record_can_be_sent_to_another_process(log: Log) -> None:
    qconsume = QConsume()
    qconsume.add_consumer("bill", lambda body: LIBRARY.info("in"), name="bill")
    qconsume.test_client(make_app(qconsume)).deliver("bill", {}, id="m-1")
    record = log.find("in")
    sent = logging.makeLogRecord(pickle.loads(pickle.dumps(vars(record))))
    assert context_of(sent) == context_of(record)


# -- the factory ---------------------------------------------------------------------


def count_ours() -> int:
    factory: t.Any = logging.getLogRecordFactory()
    count = 0
    while (found := getattr(factory, "previous", None)) is not None:
        count, factory = count + 1, found
    return count


def test_several_apps_and_workers_set_one_factory() -> None:
    for _ in range(3):
        make_app()
    install_log_context()
    assert count_ours() == 1


def test_off_sets_none(log: Log) -> None:
    before = logging.getLogRecordFactory()
    worker_app = AppWithWorkers(QCONSUME_LOGGING="off")
    worker_app.qconsume.add_consumer("bill", lambda body: None, name="bill")
    assert worker_app.start().stop()
    assert logging.getLogRecordFactory() is before
    LIBRARY.info("plain")
    assert not hasattr(log.find("plain"), "qconsume_consumer")


def test_the_apps_own_factory_is_called(log: Log) -> None:
    """It is set before ours, and has the arguments that ``logging`` gives it."""

    class Record(logging.LogRecord):
        tenant = "acme"

    logging.setLogRecordFactory(Record)
    make_app()
    LIBRARY.info("hello %s", "you", stack_info=True)
    record = log.find("hello you")
    assert isinstance(record, Record)
    assert record.stack_info
    assert record.funcName == "test_the_apps_own_factory_is_called"
    assert context_of(record) == EMPTY


def test_a_later_factory_that_calls_ours_is_left_alone() -> None:
    make_app()
    previous = logging.getLogRecordFactory()

    def make(*args: t.Any, **kwargs: t.Any) -> logging.LogRecord:
        return previous(*args, **kwargs)

    logging.setLogRecordFactory(make)
    make_app()
    assert logging.getLogRecordFactory() is make


def test_a_worker_sets_the_factory_again_if_a_later_one_has_replaced_it(
    log: Log,
) -> None:
    worker_app = AppWithWorkers()
    worker_app.qconsume.add_consumer(
        "bill", lambda body: LIBRARY.info("in"), name="bill"
    )
    id = worker_app.publish("bill", 1)  # Creates the app.
    logging.setLogRecordFactory(logging.LogRecord)
    worker = worker_app.start()
    wait_for(lambda: log.lines("cards.visa"))
    assert worker.stop()
    assert log.lines("cards.visa") == [f"in: bill {id} 1 "]


def test_a_factory_that_raises_is_left_to_the_app() -> None:
    def fail(*args: t.Any, **kwargs: t.Any) -> t.NoReturn:
        raise LookupError("no request")

    logging.setLogRecordFactory(fail)
    make_app()
    with pytest.raises(LookupError, match="no request"):
        LIBRARY.error("x")


def test_it_can_be_removed(log: Log, factory: object) -> None:
    install_log_context()
    remove_log_context()
    remove_log_context()
    assert logging.getLogRecordFactory() is factory


def test_a_removed_one_that_is_set_again_does_not_count(log: Log) -> None:
    install_log_context()
    removed = logging.getLogRecordFactory()
    remove_log_context()
    logging.setLogRecordFactory(removed)
    install_log_context()
    LIBRARY.info("again")
    assert context_of(log.find("again")) == EMPTY


def test_it_can_be_removed_below_a_later_factory(log: Log) -> None:
    install_log_context()
    ours = logging.getLogRecordFactory()
    assert isinstance(ours, LogContext)
    logging.setLogRecordFactory(lambda *args, **kwargs: ours(*args, **kwargs))
    remove_log_context()
    LIBRARY.info("plain")
    assert not hasattr(log.find("plain"), "qconsume_consumer")
    install_log_context()
    LIBRARY.info("again")
    assert context_of(log.find("again")) == EMPTY


# -- OpenTelemetry -------------------------------------------------------------------


def test_the_trace_id_is_that_of_the_current_span(log: Log) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    ids = trace.SpanContext(0xABC, 0xDEF, is_remote=False)
    qconsume = QConsume()

    @qconsume.consumer("bill", name="bill")
    def bill(body: t.Any) -> None:
        LIBRARY.info("before")
        with trace.use_span(trace.NonRecordingSpan(ids)):
            LIBRARY.info("within")

    app = make_app(qconsume)
    qconsume.test_client(app).deliver("bill", {}, id="m-1")
    with trace.use_span(trace.NonRecordingSpan(ids)):
        LIBRARY.info("request")
    trace_id = f"{0xABC:032x}"
    assert context_of(log.find("before"))["qconsume_trace_id"] == ""
    assert context_of(log.find("within"))["qconsume_trace_id"] == trace_id
    assert context_of(log.find("within"))["qconsume_message_id"] == "m-1"
    assert context_of(log.find("request")) == EMPTY | {"qconsume_trace_id": trace_id}


@pytest.mark.process
def test_opentelemetry_is_not_imported() -> None:
    done = run_script(
        "import logging, sys\n"
        "from flask import Flask\n"
        "from flask_qconsume import QConsume\n"
        "app = Flask('shop')\n"
        "app.config['QCONSUME_BROKER_URL'] = 'memory://'\n"
        "app.config['QCONSUME_TRACING'] = False\n"
        "qconsume = QConsume(app)\n"
        "qconsume.add_consumer('a', lambda body: logging.warning('in'), name='a')\n"
        "qconsume.test_client(app).deliver('a', {})\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("module", [object(), None])
def test_a_module_that_is_not_ready_gives_no_trace_id(
    log: Log, monkeypatch: pytest.MonkeyPatch, module: t.Any
) -> None:
    """Another thread may be importing it."""
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", module)
    make_app()
    LIBRARY.info("hello")
    assert context_of(log.find("hello")) == EMPTY
