"""The signal ``message_failed``: once for each failed attempt, with a context up."""

from __future__ import annotations

import contextlib
import typing as t

import pytest
from flask import current_app
from flask import g
from marshmallow import Schema
from marshmallow import fields

from flask_qconsume import Ack
from flask_qconsume import Drop
from flask_qconsume import HandlerTimeout
from flask_qconsume import InvalidMessage
from flask_qconsume import Outcome
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume import current_message
from flask_qconsume import signals
from flask_qconsume.running.time_limits import TimeLimits

from ..waiting import hang
from .conftest import Desk


class CardDeclined(Exception):
    pass


class Heard:
    """What receivers of the signal were given."""

    def __init__(self) -> None:
        self.all: list[dict[str, t.Any]] = []
        #: The id of the current message, and what the handler stored in ``g``.
        self.contexts: list[tuple[str | None, t.Any]] = []

    def __call__(self, sender: t.Any, **arguments: t.Any) -> None:
        assert sender.name == current_app.name == "tested"
        assert arguments["message"].id == current_message.id
        assert arguments["consumer"].name == "bill"
        self.contexts.append((current_message.id, g.get("tenant")))
        self.all.append(arguments)

    @property
    def one(self) -> tuple[type, bool, bool]:
        """The error's class, ``final`` and ``foreseen`` of the only signal."""
        (heard,) = self.all
        return type(heard["error"]), heard["final"], heard["foreseen"]


@pytest.fixture
def heard() -> t.Iterator[Heard]:
    made = Heard()
    with signals.message_failed.connected_to(made):
        yield made


def fail(error: BaseException) -> t.Callable[..., t.Any]:
    def raise_it(*_: t.Any) -> None:
        g.tenant = "acme"
        raise error

    return raise_it


def test_an_error_is_told_with_the_message_and_the_outcome(
    desk: Desk, heard: Heard
) -> None:
    error = ValueError("no")
    desk.handler(fail(error))
    outcome = desk.handle().outcome
    assert isinstance(outcome, Retry)
    (arguments,) = heard.all
    assert arguments["outcome"] is outcome
    assert arguments["error"] is error
    assert heard.one == (ValueError, False, False)
    assert heard.contexts == [("m1", "acme")]


def test_the_last_attempt_is_final(desk: Desk, heard: Heard) -> None:
    desk.handler(fail(ValueError()))
    desk.handle(attempt=3)
    assert heard.one == (ValueError, True, False)


def test_each_attempt_is_told(desk: Desk, heard: Heard) -> None:
    desk.handler(fail(ValueError()))
    for attempt in (1, 2, 3):
        desk.handle(attempt=attempt)
    assert [each["final"] for each in heard.all] == [False, False, True]


def test_an_invalid_body_is_a_failure_that_a_receiver_can_tell_by_its_class(
    desk: Desk, heard: Heard
) -> None:
    schema = Schema.from_dict({"id": fields.Int(required=True)})()
    desk.handler(print, schema=schema)
    desk.handle(b"{}")
    desk.handle(b"{")
    assert [isinstance(each["error"], InvalidMessage) for each in heard.all] == [
        *(True, True)
    ]
    assert [each["final"] for each in heard.all] == [True, True]


def test_the_time_limit_is_told(desk: Desk, heard: Heard) -> None:
    desk.config["timeout"] = 0.02
    desk.handler(lambda body: hang())
    desk.handle(limit=TimeLimits())
    assert heard.one == (HandlerTimeout, False, False)


@pytest.mark.parametrize(
    ("outcome", "final"), [(Reject("no"), True), (Drop("no"), True), (Retry(5), False)]
)
def test_an_error_handlers_outcome_is_foreseen(
    desk: Desk, heard: Heard, outcome: Outcome, final: bool
) -> None:
    desk.qconsume.register_message_error_handler(CardDeclined, lambda e: outcome)
    desk.handler(fail(CardDeclined()))
    desk.handle()
    assert heard.one == (CardDeclined, final, True)


def test_an_outcome_raised_because_of_an_error_is_foreseen(
    desk: Desk, heard: Heard
) -> None:
    def handle(body: t.Any) -> None:
        try:
            raise CardDeclined
        except CardDeclined as error:
            raise Reject("declined") from error

    desk.handler(handle)
    desk.handle()
    assert heard.one == (CardDeclined, True, True)


@pytest.mark.parametrize("outcome", [Ack(), Reject("no"), Drop("no"), Retry(5)])
def test_an_outcome_without_an_error_is_no_failure(
    desk: Desk, heard: Heard, outcome: Outcome
) -> None:
    desk.handler(fail(outcome))
    assert desk.handle().outcome == outcome
    assert heard.all == []


def test_an_error_handler_that_acknowledges_prevents_the_failure(
    desk: Desk, heard: Heard
) -> None:
    desk.qconsume.register_message_error_handler(CardDeclined, lambda e: Ack())
    desk.handler(fail(CardDeclined()))
    assert desk.handle().outcome == Ack()
    assert heard.all == []


@pytest.mark.parametrize("register", ["after_message", "teardown_message"])
def test_an_error_of_a_late_hook_is_told(
    desk: Desk, heard: Heard, register: str
) -> None:
    getattr(desk.qconsume, register)(fail(OSError()))
    desk.handler(lambda body: None)
    desk.handle()
    assert heard.one == (OSError, False, False)
    assert heard.contexts == [("m1", "acme")]


@contextlib.contextmanager
def failing_teardown(desk: Desk) -> t.Iterator[list[t.Any]]:
    """Let the app's teardown function raise; yield the errors that it was given."""
    given: list[t.Any] = []

    @desk.app.teardown_appcontext
    def clear(error: BaseException | None) -> None:
        given.append(error)
        raise OSError("commit failed")

    yield given


def test_an_error_of_the_apps_teardown_is_told_in_a_context_of_its_own(
    desk: Desk, heard: Heard
) -> None:
    def handle(body: t.Any) -> None:
        g.tenant = "acme"

    desk.handler(handle)
    with failing_teardown(desk):
        assert isinstance(desk.handle().outcome, Retry)
    assert heard.one == (OSError, False, False)
    assert heard.contexts == [("m1", None)]
    assert not current_message
    assert not current_app


def test_a_failure_is_told_once_although_the_teardown_fails_too(
    desk: Desk, heard: Heard
) -> None:
    desk.handler(fail(ValueError()))
    with failing_teardown(desk) as given:
        desk.handle()
    assert heard.one == (ValueError, False, False)
    assert [type(error) for error in given] == [ValueError]


def test_a_context_that_cannot_be_pushed_is_told(desk: Desk, heard: Heard) -> None:
    from flask import appcontext_pushed

    def refuse(sender: t.Any) -> None:
        raise OSError("no database")

    desk.handler(print)
    with appcontext_pushed.connected_to(refuse, desk.app):
        assert isinstance(desk.handle().outcome, Retry)
    assert heard.one == (OSError, False, False)
    assert not current_app


def test_a_receiver_that_raises_changes_nothing(desk: Desk, heard: Heard) -> None:
    def broken(sender: t.Any, **_: t.Any) -> None:
        raise SystemExit

    desk.handler(fail(ValueError()))
    with signals.message_failed.connected_to(broken):
        assert isinstance(desk.handle().outcome, Retry)
    assert heard.one == (ValueError, False, False)
