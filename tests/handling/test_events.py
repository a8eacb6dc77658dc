"""Listeners are told events; what they raise changes nothing."""

from __future__ import annotations

import functools
import gc
import logging
import typing as t

import pytest
from flask import current_app
from gevent import GreenletExit

from flask_qconsume import Ack
from flask_qconsume import Interrupted
from flask_qconsume import QConsume
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume import current_message
from flask_qconsume import signals
from flask_qconsume.handling.events import Events
from flask_qconsume.handling.events import Listener
from flask_qconsume.handling.events import tell
from flask_qconsume.handling.events import tell_end
from flask_qconsume.message import Message
from tests.apps import make_app
from tests.listeners import KINDS
from tests.listeners import Recorder
from tests.listeners import make_raisers

from .conftest import Desk


def raiser(error: type[BaseException]) -> t.Callable[..., t.Any]:
    def raise_it(*arguments: t.Any) -> None:
        raise error()

    return raise_it


# -- listeners -------------------------------------------------------------------------


def test_a_listener_hears_only_the_events_that_it_overrides() -> None:
    class Lost(Listener):
        def lost(self, consumer: t.Any, messages: t.Any) -> None: ...

    events = Events()
    listener = Lost()
    events.add(listener)
    assert {kind for kind in KINDS if getattr(events, kind)} == {"lost"}
    events.remove(listener)
    assert not any(getattr(events, kind) for kind in KINDS)


def test_every_event_is_described_by_a_method_of_listener() -> None:
    described = {name for name in vars(Listener) if not name.startswith("_")}
    assert described == set(KINDS)
    for kind in KINDS:
        assert getattr(Listener, kind).__doc__
    Events().add(Recorder())


def test_removing_one_listener_keeps_the_others() -> None:
    events, one, two = Events(), Recorder(), Recorder()
    events.add(one)
    events.add(two)
    events.remove(one)
    tell(events.connected, "bill", "billing")
    assert (one.told, two.told) == ([], [("connected", "bill", "billing")])


# -- telling ---------------------------------------------------------------------------


def test_the_ending_of_the_last_listener_is_called_first() -> None:
    ended: list[t.Any] = []

    def make_listener(name: str) -> t.Callable[[], t.Any]:
        return lambda: lambda result: ended.append((name, result))

    endings = tell([make_listener("outer"), lambda: None, make_listener("inner")])
    tell_end(endings, 1)
    assert ended == [("inner", 1), ("outer", 1)]


@pytest.mark.parametrize("error", [ValueError, SystemExit, GreenletExit])
def test_what_a_listener_raises_is_logged_and_the_others_are_told(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    raising = raiser(error)
    endings = tell([raising, told.append, lambda name: raising, raising], "begun")
    tell_end([*endings, told.append], "ended")
    assert told == ["begun", "ended"]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [
        error
    ] * 3
    assert "raise_it raised an exception, which changes nothing else." in caplog.text


def test_a_log_line_about_a_listener_has_no_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Endings often are partials, whose text would have a message with its body."""
    message = Message(b"a secret", "bill")
    inner = functools.partial(raiser(OSError), message)
    tell_end([functools.partial(inner, message)], None)
    (record,) = caplog.records
    assert record.getMessage().split()[0].endswith(".raise_it")
    assert "secret" not in record.getMessage()


def test_an_interrupt_passes_and_what_has_begun_is_ended() -> None:
    ended: list[t.Any] = []
    begun = [lambda: ended.append, raiser(Interrupted), lambda: ended.append]
    with pytest.raises(Interrupted):
        tell(begun)
    assert ended == [None]


def test_an_interrupt_at_an_end_passes_once_all_are_told() -> None:
    ended: list[t.Any] = []
    with pytest.raises(Interrupted):
        tell_end([ended.append, raiser(Interrupted), ended.append], 1)
    assert ended == [1, 1]


def test_a_log_that_raises_changes_nothing() -> None:
    def broken(record: logging.LogRecord) -> bool:
        raise RuntimeError("no disk")

    logger = logging.getLogger("flask_qconsume.events")
    logger.addFilter(broken)
    try:
        assert tell([raiser(ValueError)]) == []
    finally:
        logger.removeFilter(broken)


# -- in dispatch -----------------------------------------------------------------------


class Contexts(Listener):
    """Records which app and message are current at each event."""

    def __init__(self) -> None:
        self.seen: list[t.Any] = []

    def handling(self, handling: t.Any) -> t.Any:
        self._see("begin")
        return lambda result: self._see("end")

    def failed(self, handling: t.Any, result: t.Any) -> None:
        self._see("failed")

    def _see(self, event: str) -> None:
        message = current_message.id if current_message else None
        self.seen.append((event, bool(current_app), message))


def add_listener(desk: Desk, listener: t.Any) -> t.Any:
    desk.app.extensions["qconsume"].events.add(listener)
    return listener


def test_a_handling_begins_and_fails_in_the_app_context_and_ends_outside(
    desk: Desk,
) -> None:
    desk.handler(raiser(ValueError))
    listener = add_listener(desk, Contexts())
    desk.handle()
    assert listener.seen == [
        ("begin", True, "m1"),
        ("failed", True, "m1"),
        ("end", False, "m1"),
    ]


def test_a_failure_is_told_after_the_hooks_have_decided(desk: Desk) -> None:
    @desk.qconsume.teardown_message
    def clear(error: BaseException | None) -> None:
        raise OSError

    desk.handler(lambda body: None)
    recorder = add_listener(desk, Recorder())
    result = desk.handle()
    assert type(result.outcome) is Retry
    assert recorder("failed") == [("failed", 1, OSError)]


def test_an_error_that_leads_to_an_ack_is_no_failure(desk: Desk) -> None:
    desk.qconsume.register_message_error_handler(ValueError, lambda error: Ack())
    desk.handler(raiser(ValueError))
    recorder = add_listener(desk, Recorder())
    assert desk.handle().outcome == Ack()
    assert recorder.names == ["handling", "handled"]


def test_an_outcome_without_an_error_is_no_failure(desk: Desk) -> None:
    desk.handler(lambda body: Reject("no"))
    recorder = add_listener(desk, Recorder())
    desk.handle()
    assert recorder.names == ["handling", "handled"]


@pytest.mark.parametrize("error", [ValueError, SystemExit, GreenletExit])
def test_listeners_that_raise_do_not_change_the_result(
    desk: Desk, error: type[BaseException]
) -> None:
    outcomes = iter([None, Reject("no")])
    desk.handler(lambda body: next(outcomes))
    for listener in make_raisers(error):
        add_listener(desk, listener)
    assert desk.handle().outcome == Ack()
    assert desk.handle().outcome == Reject("no")


def test_an_interrupt_of_a_listener_leaves_the_message_unsettled(desk: Desk) -> None:
    called: list[t.Any] = []
    desk.handler(called.append)
    recorder = add_listener(desk, Recorder())
    for listener in make_raisers(Interrupted):
        add_listener(desk, listener)
    with pytest.raises(Interrupted):
        desk.handle()
    assert called == []
    assert recorder("handled") == [("handled", "bill", 1, None)]


def test_the_test_client_tells_the_events_of_handling() -> None:
    qconsume, recorder = QConsume(), Recorder()

    @qconsume.consumer("billing")
    def bill(order: t.Any) -> None:
        qconsume.publish("shipping", order)
        raise ValueError

    app = make_app(qconsume)
    app.extensions["qconsume"].events.add(recorder)
    delivered = qconsume.test_client(app).deliver("bill", 1)
    assert recorder.names == ["handling", "failed", "handled"]
    # Captured messages are not published.
    assert [dict(each.headers) for each in delivered.published] == [{}]


# -- signals ---------------------------------------------------------------------------


def test_signals_without_a_receiver_cost_nothing() -> None:
    gc.collect()  # Receivers of other tests.
    events = make_app(tracing=False).extensions["qconsume"].events
    assert [kind for kind in KINDS if getattr(events, kind)] == []


def test_a_receiver_may_be_connected_at_any_time() -> None:
    heard: list[str] = []

    def hear(sender: t.Any, **_: t.Any) -> None:
        heard.append(sender.name)

    with signals.message_published.connected_to(hear):
        early = make_app(tracing=False)
        early.extensions["qconsume"].publish_many([])
    late = make_app(tracing=False)
    for app in (early, late):
        with signals.message_published.connected_to(hear, app):
            app.extensions["qconsume"].publish("x", 1, mandatory=False)
            assert len(app.extensions["qconsume"].events.publishing) == 1
    assert heard == ["tested", "tested"]


def test_an_interrupt_while_the_outcome_is_logged_ends_what_has_begun(
    desk: Desk,
) -> None:
    def interrupt(record: logging.LogRecord) -> bool:
        raise Interrupted

    recorder, log = Recorder(), logging.getLogger("flask_qconsume.dispatch")
    desk.app.extensions["qconsume"].events.add(recorder)
    desk.handler(lambda body: Reject("no"))
    log.addFilter(interrupt)
    try:
        with pytest.raises(Interrupted):
            desk.handle()
    finally:
        log.removeFilter(interrupt)
    assert recorder("handled") == [("handled", "bill", 1, None)]
