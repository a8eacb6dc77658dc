"""One message through dispatch: every promise of its docstrings."""

from __future__ import annotations

import logging
import threading
import traceback
import typing as t
import warnings

import gevent
import pytest
from flask import current_app
from flask import g
from marshmallow import EXCLUDE
from marshmallow import RAISE
from marshmallow import Schema
from marshmallow import ValidationError
from marshmallow import fields
from marshmallow import post_load

from flask_qconsume import Ack
from flask_qconsume import Drop
from flask_qconsume import HandlerTimeout
from flask_qconsume import Interrupted
from flask_qconsume import InvalidMessage
from flask_qconsume import Outcome
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume import UndecodableMessage
from flask_qconsume import current_message
from flask_qconsume import signals
from flask_qconsume import spawn
from flask_qconsume.handling.dispatch import dispatch
from flask_qconsume.running.time_limits import TimeLimits

from ..waiting import hang
from ..waiting import spend
from .conftest import Desk


class CardDeclined(Exception):
    pass


class Expired(CardDeclined):
    pass


def raiser(error: BaseException) -> t.Callable[..., t.Any]:
    def raising(*args: t.Any) -> t.Any:
        raise error

    return raising


def returner(value: t.Any) -> t.Callable[..., t.Any]:
    return lambda *args: value


# -- outcomes --------------------------------------------------------------------------

POLICY = Retry(1.0)

DECIDED = [
    (Ack(), Ack()),
    (Retry(), POLICY),
    (Retry(30), Retry(30)),
    (Reject("no card"), Reject("no card")),
    (Drop("a duplicate"), Drop("a duplicate")),
]
each_outcome = pytest.mark.parametrize(("given", "found"), DECIDED, ids=repr)


@pytest.mark.parametrize("value", [None, 5, "Ack", {}, object(), True, ()])
def test_a_value_that_is_no_outcome_means_ack(desk: Desk, value: t.Any) -> None:
    desk.handler(returner(value))
    assert desk.handle().outcome == Ack()
    assert desk.handle().error is None


@each_outcome
def test_a_handler_may_return_an_outcome(
    desk: Desk, given: Outcome, found: Outcome
) -> None:
    desk.handler(returner(given))
    assert desk.handle().outcome == found


@each_outcome
def test_a_handler_may_raise_an_outcome(
    desk: Desk, given: Outcome, found: Outcome
) -> None:
    desk.handler(raiser(given))
    assert desk.handle().outcome == found
    assert desk.handle().error is None


@each_outcome
@pytest.mark.parametrize("way", [returner, raiser])
def test_a_hook_before_the_handler_may_end_the_message(
    desk: Desk, way: t.Any, given: Outcome, found: Outcome
) -> None:
    handled: list[t.Any] = []
    desk.handler(handled.append)
    desk.qconsume.before_message(way(given))
    assert desk.handle().outcome == found
    assert handled == []


@each_outcome
@pytest.mark.parametrize("way", [returner, raiser])
def test_an_error_handler_decides(
    desk: Desk, way: t.Any, given: Outcome, found: Outcome
) -> None:
    error = CardDeclined()
    desk.handler(raiser(error))
    desk.qconsume.register_message_error_handler(CardDeclined, way(given))
    assert desk.handle().outcome == found


@each_outcome
@pytest.mark.parametrize("way", [returner, raiser])
def test_a_hook_after_the_handler_may_change_the_outcome(
    desk: Desk, way: t.Any, given: Outcome, found: Outcome
) -> None:
    desk.handler(returner(Drop("at first")))
    desk.qconsume.after_message(way(given))
    assert desk.handle().outcome == found


@each_outcome
def test_a_schema_may_raise_an_outcome(
    desk: Desk, given: Outcome, found: Outcome
) -> None:
    class Deciding(Schema):
        @post_load
        def decide(self, data: t.Any, **_: t.Any) -> t.Any:
            raise given

    desk.handler(returner(None), schema=Deciding)
    assert desk.handle().outcome == found


@pytest.mark.parametrize("cls", [Ack, Retry, Reject, Drop])
def test_an_outcome_class_instead_of_an_instance_is_an_error(
    desk: Desk, cls: type
) -> None:
    desk.handler(returner(cls))
    result = desk.handle()
    assert result.outcome == POLICY
    assert isinstance(result.error, TypeError)
    assert f"return an instance: '{cls.__name__}(...)'" in str(result.error)


def test_an_outcome_class_from_a_hook_is_an_error_too(desk: Desk) -> None:
    desk.handler(returner(None))
    desk.qconsume.after_message(returner(Reject))
    result = desk.handle()
    assert (result.outcome, type(result.error)) == (POLICY, TypeError)


def test_an_error_that_an_outcome_was_raised_from_is_kept(desk: Desk) -> None:
    declined = CardDeclined()

    def explicit(body: t.Any) -> None:
        raise Reject("no card") from declined

    desk.handler(explicit)
    assert desk.handle().error is declined


def test_an_error_that_was_being_handled_is_kept_too(desk: Desk) -> None:
    def implicit(body: t.Any) -> None:
        try:
            raise CardDeclined()
        except CardDeclined:
            raise Retry() from None

    def kept(body: t.Any) -> None:
        try:
            raise CardDeclined()
        except CardDeclined:
            raise Retry()  # noqa: B904

    desk.handler(kept)
    desk.qconsume.add_consumer("other", implicit, name="other")
    assert isinstance(desk.handle().error, CardDeclined)
    assert desk.handle(name="other").outcome == POLICY


def test_ack_raised_while_handling_an_error_has_no_error(desk: Desk) -> None:
    def forgiving(body: t.Any) -> None:
        try:
            raise CardDeclined()
        except CardDeclined as error:
            raise Ack() from error

    desk.handler(forgiving)
    result = desk.handle()
    assert (result.outcome, result.error) == (Ack(), None)


async def coroutine(body: t.Any = None) -> None: ...


def generator(body: t.Any = None) -> t.Iterator[None]:
    yield


async def agenerator(body: t.Any = None) -> t.AsyncIterator[None]:
    yield


@pytest.mark.parametrize("function", [coroutine, generator, agenerator])
def test_what_only_returned_something_to_run_is_not_acknowledged(
    desk: Desk, function: t.Any
) -> None:
    desk.handler(lambda body: function(body))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = desk.handle()
    assert result.outcome == POLICY
    assert "of which nothing has run yet" in str(result.error)


# -- the end of the attempts -----------------------------------------------------------


@pytest.mark.parametrize("attempt", [3, 4, 1_000_000])
@pytest.mark.parametrize(
    "function", [raiser(CardDeclined()), raiser(Retry()), returner(Retry(5))]
)
def test_after_the_last_attempt_it_is_rejected(
    desk: Desk, function: t.Any, attempt: int
) -> None:
    desk.handler(function)
    outcome = desk.handle(attempt=attempt).outcome
    assert outcome == Reject(f"failed {attempt} of 3 attempts")


def test_each_attempt_waits_for_longer(desk: Desk) -> None:
    desk.handler(raiser(CardDeclined()))
    assert desk.handle(attempt=1).outcome == Retry(1)
    assert desk.handle(attempt=2).outcome == Retry(4)


def test_an_after_hook_cannot_retry_for_ever(desk: Desk) -> None:
    desk.handler(raiser(CardDeclined()))
    desk.qconsume.after_message(returner(Retry(1)))
    assert desk.handle(attempt=3).outcome == Reject("failed 3 of 3 attempts")


# -- errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        gevent.GreenletExit(),
        gevent.Timeout(1),
        HandlerTimeout(1),
        BaseException(),
        MemoryError(),
        RecursionError(),
        StopIteration(),
    ],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.parametrize("place", ["before", "handler", "schema", "error handler"])
def test_whatever_is_raised_is_retried(
    desk: Desk, place: str, error: BaseException
) -> None:
    class Raising(Schema):
        @post_load
        def fail(self, data: t.Any, **_: t.Any) -> None:
            raise error

    desk.handler(
        {"handler": raiser(error), "error handler": raiser(CardDeclined())}.get(
            place, returner(None)
        ),
        schema=Raising if place == "schema" else None,
    )
    if place == "before":
        desk.qconsume.before_message(raiser(error))
    if place == "error handler":
        desk.qconsume.register_message_error_handler(CardDeclined, raiser(error))
    result = desk.handle()
    assert (result.outcome, result.error) == (POLICY, error)


def test_an_error_that_is_given_up_on_is_rejected_at_once(desk: Desk) -> None:
    desk.config["retry"] = {"give_up_on": [CardDeclined]}
    desk.handler(raiser(Expired()))
    assert desk.handle().outcome == Reject("Expired is not retried")


def test_error_handlers_of_the_nearest_class_are_asked_first(desk: Desk) -> None:
    asked: list[str] = []

    def note(name: str, outcome: Outcome | None) -> t.Callable[..., t.Any]:
        def handler(error: BaseException) -> Outcome | None:
            asked.append(name)
            return outcome

        return handler

    register = desk.qconsume.register_message_error_handler
    register(BaseException, note("BaseException", Drop("at last")))
    register(CardDeclined, note("CardDeclined", None))
    register(Expired, note("Expired", None))
    register(OSError, note("OSError", Drop("never")))
    desk.handler(raiser(Expired()))
    assert desk.handle().outcome == Drop("at last")
    assert asked == ["Expired", "CardDeclined", "BaseException"]


def test_none_of_all_error_handlers_leaves_it_to_the_policy(desk: Desk) -> None:
    desk.handler(raiser(CardDeclined()))
    desk.qconsume.register_message_error_handler(Exception, returner(None))
    assert desk.handle().outcome == POLICY


def test_another_value_of_an_error_handler_means_none(desk: Desk) -> None:
    desk.handler(raiser(CardDeclined()))
    desk.qconsume.register_message_error_handler(CardDeclined, returner("handled"))
    assert desk.handle().outcome == POLICY


def test_an_error_handler_that_raises_goes_to_the_policy_with_its_error(
    desk: Desk,
) -> None:
    asked: list[BaseException] = []
    desk.handler(raiser(Expired()))
    worse = CardDeclined("worse")
    desk.qconsume.register_message_error_handler(Expired, raiser(worse))
    desk.qconsume.register_message_error_handler(CardDeclined, asked.append)
    result = desk.handle()
    assert (result.outcome, result.error) == (POLICY, worse)
    assert asked == []


def test_error_handlers_see_what_is_wrong_with_a_message(desk: Desk) -> None:
    seen: list[BaseException] = []
    desk.handler(returner(None))
    desk.qconsume.register_message_error_handler(InvalidMessage, seen.append)
    desk.handle(b"{")
    assert isinstance(seen[0], UndecodableMessage)


def test_an_error_handler_may_forgive_an_undecodable_message(desk: Desk) -> None:
    desk.handler(returner(None))
    desk.qconsume.register_message_error_handler(
        UndecodableMessage, returner(Drop("junk"))
    )
    assert desk.handle(b"{").outcome == Drop("junk")


# -- what comes after the handler ------------------------------------------------------

LATE = [ValueError("late"), SystemExit(), HandlerTimeout(1), gevent.GreenletExit()]
each_late = pytest.mark.parametrize("late", LATE, ids=lambda e: type(e).__name__)
PLACES = ["after_message", "teardown_message", "teardown_appcontext"]
each_place = pytest.mark.parametrize("place", PLACES)


def raise_late(desk: Desk, place: str, error: BaseException) -> None:
    if place == "teardown_appcontext":
        desk.app.teardown_appcontext(raiser(error))
    else:
        getattr(desk.qconsume, place)(raiser(error))


@each_late
@each_place
def test_what_raises_after_the_handler_takes_back_an_ack(
    desk: Desk, place: str, late: BaseException
) -> None:
    desk.handler(returner(None))
    raise_late(desk, place, late)
    result = desk.handle()
    assert (result.outcome, result.error) == (POLICY, late)
    assert desk.handle(attempt=3).outcome == Reject("failed 3 of 3 attempts")


@each_place
@pytest.mark.parametrize("outcome", [Reject("no"), Drop("no"), Retry(30)])
def test_what_raises_after_the_handler_leaves_other_outcomes(
    desk: Desk, place: str, outcome: Outcome
) -> None:
    desk.handler(returner(outcome))
    raise_late(desk, place, ValueError())
    assert desk.handle().outcome == outcome


@each_place
def test_what_raises_after_the_handler_is_logged(
    desk: Desk, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    desk.handler(returner(None))
    raise_late(desk, place, CardDeclined("late"))
    desk.handle()
    assert "A hook of the consumer 'bill' raised after the handler." in caplog.text
    assert "CardDeclined: late" in caplog.text


def test_after_a_hook_that_raised_the_next_hooks_run(desk: Desk) -> None:
    called: list[str] = []
    desk.handler(returner(None))
    desk.qconsume.after_message(lambda outcome: called.append(f"after {outcome!r}"))
    desk.qconsume.after_message(raiser(ValueError()))
    desk.qconsume.teardown_message(lambda error: called.append("teardown"))
    desk.qconsume.teardown_message(raiser(ValueError()))
    desk.handle()
    assert called == ["after Retry(delay=1.0)", "teardown"]


def test_an_outcome_raised_by_a_teardown_is_an_error_there(desk: Desk) -> None:
    desk.handler(returner(None))
    desk.qconsume.teardown_message(raiser(Drop("too late to say")))
    assert desk.handle().outcome == POLICY


@pytest.mark.parametrize("error", [None, CardDeclined()])
def test_teardown_hooks_are_told_the_error(desk: Desk, error: Exception | None) -> None:
    told: list[t.Any] = []
    desk.handler(raiser(error) if error else returner(None))
    desk.qconsume.teardown_message(told.append)
    desk.app.teardown_appcontext(told.append)
    desk.handle()
    assert told == [error, error]


def test_an_error_that_was_forgiven_is_none_to_the_app_context(desk: Desk) -> None:
    told: list[t.Any] = []
    desk.handler(raiser(CardDeclined()))
    desk.qconsume.register_message_error_handler(CardDeclined, returner(Ack()))
    desk.app.teardown_appcontext(told.append)
    desk.handle()
    assert told == [None]


def test_after_hooks_get_the_outcome_as_it_was_decided(desk: Desk) -> None:
    seen: list[Outcome] = []
    desk.handler(returner(Retry()))
    desk.qconsume.after_message(seen.append)
    desk.qconsume.after_message(returner(Drop("changed")))
    desk.handle()
    assert seen == [Drop("changed")]


def test_an_app_context_that_cannot_begin_is_an_error_like_any_other(
    desk: Desk,
) -> None:
    from flask import appcontext_pushed

    handled: list[t.Any] = []
    desk.handler(handled.append)

    def refuse(sender: t.Any, **_: t.Any) -> None:
        raise CardDeclined()

    with appcontext_pushed.connected_to(refuse, desk.app):
        result = desk.handle()
    assert result.outcome == POLICY
    assert handled == []
    assert not current_app


# -- the order -------------------------------------------------------------------------


def test_the_steps_come_in_their_order(desk: Desk) -> None:
    order: list[str] = []

    class Loading(Schema):
        @post_load
        def note(self, data: t.Any, **_: t.Any) -> str:
            order.append("schema")
            return "loaded"

    desk.handler(lambda body: order.append(f"handler {body}"), schema=Loading)
    desk.qconsume.before_message(lambda: order.append("before 1"))
    desk.qconsume.before_message(lambda: order.append("before 2"))
    desk.qconsume.after_message(lambda outcome: order.append("after 1"))
    desk.qconsume.after_message(lambda outcome: order.append("after 2"))
    desk.qconsume.teardown_message(lambda error: order.append("teardown 1"))
    desk.qconsume.teardown_message(lambda error: order.append("teardown 2"))
    desk.app.teardown_appcontext(lambda error: order.append("app context"))
    desk.handle()
    assert order == [
        "before 1",
        "before 2",
        "schema",
        "handler loaded",
        "after 2",
        "after 1",
        "teardown 2",
        "teardown 1",
        "app context",
    ]


def test_hooks_before_see_the_body_and_an_undecodable_one_gets_there_never(
    desk: Desk,
) -> None:
    seen: list[t.Any] = []
    desk.handler(returner(None))
    desk.qconsume.before_message(lambda: seen.append(current_message.body))
    desk.handle(b'{"id": 1}')
    desk.handle(b"{")
    assert seen == [{"id": 1}]


# -- the stop's interrupt --------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["before_message", "handler", "error handler", "after", "teardown"]
)
def test_an_interrupt_leaves_dispatch_with_everything_torn_down(
    desk: Desk, place: str
) -> None:
    stop = Interrupted()
    told: list[t.Any] = []
    desk.qconsume.teardown_message(told.append)
    if place == "teardown":
        desk.qconsume.teardown_message(raiser(stop))
    desk.app.teardown_appcontext(told.append)
    if place == "before_message":
        desk.qconsume.before_message(raiser(stop))
    if place == "after":
        desk.qconsume.after_message(raiser(stop))
    if place == "error handler":
        desk.qconsume.register_message_error_handler(CardDeclined, raiser(stop))
    desk.handler(
        {"handler": raiser(stop), "error handler": raiser(CardDeclined())}.get(
            place, returner(None)
        )
    )
    with pytest.raises(Interrupted) as caught:
        desk.handle()
    assert caught.value is stop
    # A teardown that commits unless it is told of an error must be told of this one.
    assert told == ([None, stop] if place == "teardown" else [stop, stop])
    assert not current_app
    assert not current_message


@each_place
def test_nothing_raised_later_hides_an_interrupt(desk: Desk, place: str) -> None:
    stop = Interrupted()
    desk.handler(raiser(stop))
    raise_late(desk, place, ValueError())
    with pytest.raises(Interrupted) as caught:
        desk.handle()
    assert caught.value is stop


def test_an_interrupt_is_no_business_of_error_handlers(desk: Desk) -> None:
    asked: list[BaseException] = []
    desk.handler(raiser(Interrupted()))
    desk.qconsume.register_message_error_handler(BaseException, asked.append)
    with pytest.raises(Interrupted):
        desk.handle()
    assert asked == []


def test_an_interrupted_message_is_reported_by_no_signal(desk: Desk) -> None:
    heard: list[str] = []
    desk.handler(raiser(Interrupted()))
    hear = {
        signal: lambda sender, **_: heard.append("told")
        for signal in (signals.message_handled, signals.message_retried)
    }
    for signal, receiver in hear.items():
        signal.connect(receiver, desk.app)
    with pytest.raises(Interrupted):
        desk.handle()
    assert heard == []


# -- time ------------------------------------------------------------------------------


def test_steps_two_to_four_have_the_consumers_time_limit(desk: Desk) -> None:
    desk.config["timeout"] = 0.05
    desk.handler(lambda body: hang())
    result = desk.handle(limit=TimeLimits())
    assert result.outcome == POLICY
    assert isinstance(result.error, HandlerTimeout)
    assert result.error.seconds == 0.05


def test_a_time_limit_ends_a_hook_too(desk: Desk) -> None:
    desk.config["timeout"] = 0.05
    desk.handler(returner(None))
    desk.qconsume.before_message(hang)
    assert isinstance(desk.handle(limit=TimeLimits()).error, HandlerTimeout)


def test_a_swallowed_time_limit_is_no_ack(desk: Desk) -> None:
    def stubborn(body: t.Any) -> None:
        try:
            hang()
        except BaseException:
            return

    desk.config["timeout"] = 0.05
    desk.handler(stubborn)
    result = desk.handle(limit=TimeLimits())
    assert (result.outcome, type(result.error)) == (POLICY, HandlerTimeout)


def test_an_except_exception_does_not_swallow_the_time_limit(desk: Desk) -> None:
    swallowed: list[Exception] = []

    def careless(body: t.Any) -> None:
        try:
            hang()
        except Exception as error:
            swallowed.append(error)

    desk.config["timeout"] = 0.05
    desk.handler(careless)
    desk.handle(limit=TimeLimits())
    assert swallowed == []


def test_error_handlers_and_teardown_are_not_cut_off_by_the_time_limit(
    desk: Desk,
) -> None:
    done: list[str] = []

    def slow(name: str) -> t.Callable[..., None]:
        def work(*args: t.Any) -> None:
            spend(0.1)
            done.append(name)

        return work

    desk.config["timeout"] = 0.05
    desk.handler(raiser(CardDeclined()))
    desk.qconsume.register_message_error_handler(CardDeclined, slow("error handler"))
    desk.qconsume.after_message(slow("after"))
    desk.qconsume.teardown_message(slow("teardown"))
    assert desk.handle(limit=TimeLimits()).outcome == POLICY
    assert done == ["error handler", "after", "teardown"]


def test_a_handler_knows_its_deadline_and_whether_it_should_stop(desk: Desk) -> None:
    stopping = threading.Event()
    seen: list[t.Any] = []

    def look(body: t.Any) -> None:
        seen.append((current_message.remaining, current_message.stopping))

    desk.config["timeout"] = 30
    desk.handler(look)
    consumer = desk.app.extensions["qconsume"].consumers["bill"]
    from flask_qconsume import Message

    dispatch(desk.app, consumer, Message(b"{}", "billing"), stopping=stopping)
    (remaining, event) = seen[0]
    assert 29 < remaining <= 30
    assert event is stopping


@pytest.mark.parametrize(
    ("expires_at", "outcome"),
    [
        (None, Ack()),
        (100.0, Drop("expired before it was consumed")),
        (99.9, Drop("expired before it was consumed")),
        (100.1, Ack()),
    ],
)
def test_an_expired_message_is_dropped_unread(
    desk: Desk, expires_at: float | None, outcome: Outcome
) -> None:
    desk.handler(returner(None))
    result = desk.handle(expires_at=expires_at, now=lambda: 100.0)
    assert result.outcome == outcome
    unread = desk.handle(b"{", expires_at=1.0)
    assert unread.outcome == Drop("expired before it was consumed")


# -- contexts and children -------------------------------------------------------------


def test_a_message_has_an_app_context_of_its_own(desk: Desk) -> None:
    seen: list[t.Any] = []

    def look(body: t.Any) -> None:
        seen.append((current_app.name, current_message.id, "tenant" in g))
        g.tenant = body

    desk.handler(look)
    with desk.app.app_context():
        g.tenant = "outside"
        desk.handle()
        assert g.tenant == "outside"
    assert seen == [("tested", "m1", False)]


def test_a_message_within_a_message_gives_the_outer_one_back(desk: Desk) -> None:
    seen: list[str | None] = []

    def outer(body: t.Any) -> None:
        desk.handle(name="inner", id="within")
        seen.append(current_message.id)

    desk.handler(outer)
    desk.qconsume.add_consumer(
        "inner", lambda body: seen.append(current_message.id), name="inner"
    )
    desk.handle()
    assert seen == ["within", "m1"]


def test_children_end_with_their_handler_before_the_teardown(desk: Desk) -> None:
    order: list[str] = []
    started = gevent.event.Event()

    def child(name: str) -> None:
        try:
            order.append(f"{name} of {current_message.id} for {g.tenant}")
            if name == "second":
                started.set()
            gevent.event.Event().wait()
        finally:
            order.append(f"{name} ended")

    def handler(body: t.Any) -> None:
        g.tenant = "acme"
        spawn(child, "first")
        spawn(child, name="second")
        started.wait()

    desk.handler(handler)
    desk.qconsume.teardown_message(lambda error: order.append("teardown"))
    assert desk.handle().outcome == Ack()
    assert order == [
        "first of m1 for acme",
        "second of m1 for acme",
        "second ended",
        "first ended",
        "teardown",
    ]


def test_a_childs_error_is_raised_where_it_is_waited_for(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.handler(lambda body: spawn(raiser(CardDeclined())).get())
    result = desk.handle()
    assert (result.outcome, type(result.error)) == (POLICY, CardDeclined)


@pytest.mark.parametrize("outcome", [Ack(), Drop("no"), Reject("no")])
def test_all_endings_run_though_one_raises_and_only_an_ack_suffers(
    desk: Desk, outcome: Outcome
) -> None:
    from flask_qconsume.handling.context import current

    ended: list[str] = []

    def handler(body: t.Any) -> Outcome:
        current.get().at_end(lambda: ended.append("first"))
        current.get().at_end(raiser(ValueError()))
        return outcome

    desk.handler(handler)
    found = desk.handle().outcome
    assert ended == ["first"]
    assert found == (POLICY if outcome == Ack() else outcome)


# -- schemas ---------------------------------------------------------------------------


class Order(Schema):
    id = fields.Int(required=True)


class Lenient(Order):
    class Meta:
        unknown = EXCLUDE


@pytest.mark.parametrize("schema", [Order, Order()])
def test_a_schema_loads_the_body(desk: Desk, schema: t.Any) -> None:
    got: list[t.Any] = []
    desk.handler(got.append, schema=schema)
    assert desk.handle(b'{"id": "5"}').outcome == Ack()
    assert got == [{"id": 5}]


def test_a_schema_of_many(desk: Desk) -> None:
    got: list[t.Any] = []
    desk.handler(got.append, schema=Order(many=True))
    desk.handle(b'[{"id": 1}, {"id": 2}]')
    refused = desk.handle(b'[{"id": 1}, {"id": "x"}]')
    assert got == [[{"id": 1}, {"id": 2}]]
    assert isinstance(refused.error, InvalidMessage)
    assert refused.error.details == {1: {"id": ["Not a valid integer."]}}


@pytest.mark.parametrize(
    ("schema", "accepted"),
    [
        (Order, False),
        (Lenient, True),
        (Order(unknown=EXCLUDE), True),
        (Lenient(unknown=RAISE), False),
    ],
)
def test_unknown_fields_are_left_to_the_schema(
    desk: Desk, schema: t.Any, accepted: bool
) -> None:
    got: list[t.Any] = []
    desk.handler(got.append, schema=schema)
    desk.handle(b'{"id": 1, "colour": "red"}')
    assert got == ([{"id": 1}] if accepted else [])


@pytest.mark.parametrize("body", [b"5", b"[]", b'"x"', b"null", b"{}", b'{"id": null}'])
def test_what_the_schema_refuses_is_rejected_at_once_with_its_errors(
    desk: Desk, body: bytes
) -> None:
    handled: list[t.Any] = []
    desk.handler(handled.append, schema=Order)
    result = desk.handle(body)
    assert isinstance(result.outcome, Reject)
    assert result.outcome.reason.startswith("the schema refused it: {")
    assert isinstance(result.error, InvalidMessage)
    assert isinstance(result.error.__cause__, ValidationError)
    assert result.error.details == result.error.__cause__.messages
    assert handled == []


def test_of_many_errors_the_first_thousand_are_kept(desk: Desk) -> None:
    desk.handler(lambda body: None, schema=Order(many=True))

    result = desk.handle(b"[" + b"1," * 20_000 + b"1]")

    assert isinstance(result.outcome, Reject)
    assert len(result.outcome.reason) < 2_100
    assert isinstance(result.error, InvalidMessage)
    assert len(result.error.details) == 1_000
    assert len("".join(traceback.format_exception(result.error))) < 200_000


def test_a_validation_error_of_the_handlers_own_is_retried(desk: Desk) -> None:
    desk.handler(lambda body: Order().load({}), schema=Lenient)
    result = desk.handle(b'{"id": 1}')
    assert (result.outcome, type(result.error)) == (POLICY, ValidationError)


# -- observers -------------------------------------------------------------------------

BY_OUTCOME = [
    (Ack(), signals.message_handled),
    (Retry(5), signals.message_retried),
    (Reject("no"), signals.message_rejected),
    (Drop("no"), signals.message_dropped),
]


@pytest.mark.parametrize(
    ("outcome", "signal"),
    BY_OUTCOME,
    ids=[type(outcome).__name__ for outcome, _ in BY_OUTCOME],
)
def test_each_outcome_has_its_signal(
    desk: Desk, outcome: Outcome, signal: t.Any
) -> None:
    heard: list[t.Any] = []

    def hear(name: str) -> t.Callable[..., None]:
        def receiver(sender: t.Any, **arguments: t.Any) -> None:
            assert sender is desk.app
            assert arguments["consumer"].name == "bill"
            assert arguments["message"].id == "m1"
            heard.append((name, arguments.get("outcome")))

        return receiver

    desk.handler(returner(outcome))
    receivers = [(signals.message_received, hear("received"))]
    receivers += [(each, hear(each.name)) for _, each in BY_OUTCOME]
    for each, receiver in receivers:
        each.connect(receiver, desk.app)
    desk.handle()
    assert heard == [("received", None), (signal.name, outcome)]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(), HandlerTimeout(1)])
def test_a_receiver_that_raises_is_logged_and_changes_nothing(
    desk: Desk, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = raiser(error)

    def receive(sender: t.Any, **_: t.Any) -> None:
        receiver()

    desk.handler(returner(None))
    with signals.message_handled.connected_to(receive, desk.app):
        assert desk.handle().outcome == Ack()
    assert " raised" in caplog.text


def test_an_interrupt_of_a_receiver_leaves_the_message_unsettled(desk: Desk) -> None:
    def receive(sender: t.Any, **_: t.Any) -> None:
        raise Interrupted()

    desk.handler(returner(None))
    hearing = signals.message_handled.connected_to(receive, desk.app)
    with hearing, pytest.raises(Interrupted):
        desk.handle()


def test_a_receiver_that_raises_does_not_stop_other_receivers(desk: Desk) -> None:
    heard: list[str] = []

    def raising(sender: t.Any, **_: t.Any) -> None:
        raise ValueError()

    receivers = [raising, lambda sender, **_: heard.append("1")]
    receivers += [raising, lambda sender, **_: heard.append("2")]
    desk.handler(returner(None))
    for receiver in receivers:
        signals.message_received.connect(receiver, desk.app)
    assert desk.handle().outcome == Ack()
    assert sorted(heard) == ["1", "2"]


def test_logging_that_raises_changes_nothing(desk: Desk) -> None:
    def broken(record: logging.LogRecord) -> bool:
        raise RuntimeError("no disk")

    logger = logging.getLogger("flask_qconsume.dispatch")
    desk.handler(returner(Reject("no")))
    desk.qconsume.teardown_message(raiser(ValueError()))
    logger.addFilter(broken)
    try:
        assert desk.handle().outcome == Reject("no")
    finally:
        logger.removeFilter(broken)


FORGED = "x\n2026-01-01 CRITICAL all is lost\x1b[2J"


@pytest.mark.parametrize(
    "function",
    [raiser(ValueError(FORGED)), returner(Reject(FORGED)), returner(Drop(FORGED))],
)
def test_no_message_can_forge_a_line_of_the_log(
    desk: Desk, function: t.Any, caplog: pytest.LogCaptureFixture
) -> None:
    desk.handler(function)
    with caplog.at_level(logging.INFO, "flask_qconsume"):
        desk.handle(id=FORGED)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].isprintable()
    assert said[0].count(r"x\n2026-01-01 CRITICAL all is lost\x1b[2J") == 2


def test_a_retry_is_logged_with_its_attempt_delay_and_error(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.handler(raiser(CardDeclined("no funds")))
    desk.qconsume.add_consumer("asked", raiser(Retry(7)), name="asked")
    desk.handle(attempt=2)
    desk.handle(name="asked")
    assert [record.getMessage() for record in caplog.records] == [
        "bill: message m1 failed (attempt 2 of 3), again in 4.0 s:"
        " CardDeclined: no funds",
        "asked: message m1 failed (attempt 1 of 3), again in 7.0 s: it was asked for",
    ]


def test_a_rejected_message_is_logged_with_a_traceback_unless_it_was_invalid(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.handler(raiser(CardDeclined()))
    desk.handle(attempt=3)
    desk.handle(b"{")
    failed, invalid = caplog.records
    assert failed.exc_info and failed.exc_info[0] is CardDeclined
    assert not invalid.exc_info
    assert "is a dead letter after 1 attempt: the body is no" in invalid.getMessage()


def test_an_error_whose_text_raises_is_logged_all_the_same(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError()

    desk.handler(raiser(Mute()))
    assert desk.handle().outcome == POLICY
    assert "(Mute, without a readable text)" in caplog.text


def test_a_dead_letter_that_was_foreseen_is_logged_without_a_traceback(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.handler(raiser(CardDeclined("no funds")))
    desk.qconsume.register_message_error_handler(
        CardDeclined, lambda error: Reject(str(error))
    )
    assert isinstance(desk.handle().error, CardDeclined)
    (record,) = caplog.records
    assert not record.exc_info
    assert record.getMessage().endswith("is a dead letter after 1 attempt: no funds")


# -- tracebacks ------------------------------------------------------------------------


def fail(body: t.Any) -> None:
    if body == "key":
        raise KeyError(body)
    raise ValueError(body)


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[bool, str]]:
    """Whether each record has a traceback, and the end of its line."""
    return [
        (bool(record.exc_info), record.getMessage().split(" s: ")[-1])
        for record in caplog.records
    ]


def test_the_first_failure_of_each_error_shows_its_traceback(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """The others have the place and the count in their one line."""
    desk.handler(fail)
    desk.qconsume.add_consumer("other", fail, name="other")
    for raw in (b'"one"', b'"two"', b'"key"', b'"three"'):
        desk.handle(raw)
    desk.handle(b'"four"', name="other")
    line = fail.__code__.co_firstlineno + 3
    place = f"{fail.__code__.co_filename}:{line}"
    assert logged(caplog) == [
        (True, "ValueError: one"),
        (False, f"ValueError: two (at {place}, 2 times so far)"),
        (True, "KeyError: 'key'"),
        (False, f"ValueError: three (at {place}, 3 times so far)"),
        (True, "ValueError: four"),
    ]
    assert "in fail\n    raise ValueError(body)\nValueError: one" in caplog.text


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("first", [True, False, True, True]),
        ("always", [True, True, True, True]),
        ("never", [False, False, False, False]),
    ],
)
def test_which_tracebacks_are_logged_is_a_setting(
    desk: Desk, caplog: pytest.LogCaptureFixture, setting: str, shown: list[bool]
) -> None:
    """The last two are dead letters."""
    desk.config["log_tracebacks"] = setting
    desk.handler(fail)
    for attempt in (1, 2, 3, 3):
        desk.handle(attempt=attempt)
    assert [with_traceback for with_traceback, _ in logged(caplog)] == shown


def test_a_retry_that_was_asked_for_is_no_news(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    def ask(body: t.Any) -> None:
        try:
            fail(body)
        except ValueError as error:
            raise Retry(7) from error

    desk.handler(ask)
    desk.handle(b'"x"')
    assert logged(caplog) == [(False, "ValueError: x")]
