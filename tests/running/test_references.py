"""Objects that a message referred to are freed with it, without the collector."""

from __future__ import annotations

import gc
import logging
import typing as t
import weakref
from collections.abc import Callable
from collections.abc import Iterator

import gevent
import pytest
from marshmallow import Schema
from marshmallow import fields

from flask_qconsume import Interrupted
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume import current_message
from flask_qconsume import spawn

from ..harness.scripts import run_script
from ..waiting import hang
from ..waiting import wait_for
from .conftest import AppWithWorkers


class Held:
    """A resource in a handler's variable, such as a file or a session."""


class OrderSchema(Schema):
    id = fields.Int(required=True)


Watched = list["weakref.ref[t.Any]"]


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Objects that must be freed; the collector is off, and no log is kept."""
    logging.disable()
    gc.disable()
    yield []
    gc.enable()
    logging.disable(logging.NOTSET)


def watch(watched: Watched) -> Held:
    """A resource to hold in a variable; it and the message must be freed."""
    held = Held()
    message = current_message._get_current_object()  # type: ignore[attr-defined]
    watched += [weakref.ref(held), weakref.ref(message)]
    return held


def fail() -> t.NoReturn:
    raise OSError("gateway down")


def fail_while_handling() -> t.NoReturn:
    try:
        fail()
    except OSError as error:
        kept = error
        raise RuntimeError from kept


def fail_in_a_child() -> None:
    child = spawn(fail)
    child.get()


def fail_in_a_child_unseen() -> None:
    child = spawn(fail)
    child.join()


def swallow_the_limit() -> None:
    try:
        hang()
    except BaseException as error:
        kept = error
    assert kept


def return_retry() -> Retry:
    return Retry(0)


def raise_retry() -> t.NoReturn:
    raise Retry(0)


def raise_reject() -> t.NoReturn:
    try:
        fail()
    except OSError as error:
        kept = error
        raise Reject("no") from kept


def exit() -> t.NoReturn:
    raise SystemExit


HANDLERS: list[Callable[[], t.Any]] = [
    lambda: None,
    fail,
    fail_while_handling,
    fail_in_a_child,
    fail_in_a_child_unseen,
    hang,
    swallow_the_limit,
    return_retry,
    raise_retry,
    raise_reject,
    exit,
]


def names(value: t.Any) -> str:
    return t.cast(str, getattr(value, "__name__", str(value)))


def check_that_nothing_is_left(watched: Watched) -> None:
    assert watched
    wait_for(lambda: not [each for each in watched if each() is not None])


@pytest.mark.parametrize("handle", HANDLERS, ids=names)
def test_a_handlers_variables_are_freed_with_its_message(
    worker_app: AppWithWorkers, watched: Watched, handle: Callable[[], t.Any]
) -> None:
    @worker_app.qconsume.consumer(
        "billing", retry={"max_attempts": 2, "min_delay": 0.01}, timeout=0.05
    )
    def bill(order: t.Any) -> t.Any:
        held = watch(watched)
        return held and handle()

    worker = worker_app.start()
    counts = worker.subscriptions[0].counts
    for number in range(3):
        worker_app.publish("billing")
        wait_for(lambda n=number: counts["ack"] + counts["reject"] > n)

    check_that_nothing_is_left(watched)


@pytest.mark.parametrize("raised", [OSError, Reject], ids=names)
@pytest.mark.parametrize(
    "stage", ["before_message", "after_message", "teardown_message", "errorhandler"]
)
def test_a_hooks_variables_are_freed_with_its_message(
    worker_app: AppWithWorkers,
    watched: Watched,
    stage: str,
    raised: type[Exception],
) -> None:
    def function(*args: t.Any) -> t.NoReturn:
        held = watch(watched)
        kept = raised("no")
        assert held
        raise kept

    if stage == "errorhandler":
        worker_app.qconsume.message_errorhandler(KeyError)(function)
    else:
        getattr(worker_app.qconsume, stage)(function)

    @worker_app.qconsume.consumer(
        "billing", retry={"max_attempts": 2, "min_delay": 0.01}
    )
    def bill(order: t.Any) -> None:
        if stage == "errorhandler":
            raise KeyError

    worker = worker_app.start()
    counts = worker.subscriptions[0].counts
    worker_app.publish("billing")
    wait_for(lambda: counts["reject"] + counts["ack"])

    check_that_nothing_is_left(watched)


@pytest.mark.parametrize(
    ("body", "options"),
    [({"id": "x"}, {}), (b"{", {"content_type": "application/json"})],
    ids=["refused by the schema", "undecodable"],
)
def test_a_message_that_cannot_be_handled_leaves_nothing(
    worker_app: AppWithWorkers,
    watched: Watched,
    body: t.Any,
    options: dict[str, t.Any],
) -> None:
    worker_app.qconsume.add_consumer(
        "billing", print, name="bill", schema=OrderSchema()
    )

    @worker_app.qconsume.teardown_message
    def look(error: BaseException | None) -> None:
        watch(watched)
        assert error is not None
        watched.append(weakref.ref(error))

    worker = worker_app.start()
    worker_app.publish("billing", body, **options)
    wait_for(lambda: worker.subscriptions[0].counts["reject"])

    check_that_nothing_is_left(watched)


def test_an_interrupted_message_leaves_nothing(
    worker_app: AppWithWorkers, watched: Watched
) -> None:
    interrupted: list[bool] = []

    @worker_app.qconsume.consumer("billing")
    def bill(order: t.Any) -> None:
        held = watch(watched)
        try:
            hang()
        except Interrupted:
            interrupted.append(bool(held))
            raise

    worker = worker_app.start()
    worker_app.publish("billing")
    wait_for(lambda: worker.busy == 1)
    worker.stop(timeout=0)
    assert interrupted == [True]
    check_that_nothing_is_left(watched)


@pytest.mark.process
def test_failures_that_hold_files_do_not_use_them_up() -> None:
    """In a separate worker, which may open 64 files and has no collector."""
    done = run_script(
        """
from gevent import monkey
monkey.patch_all()
import gc, resource, threading
from flask import Flask
from flask_qconsume import QConsume
from flask_qconsume.running.worker import Worker

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
gc.disable()
app = Flask("shop")
app.config["QCONSUME_BROKER_URL"] = "memory://"
qconsume = QConsume(app)
failures, over = [], threading.Event()

@qconsume.consumer("billing", concurrency=5, retry={"max_attempts": 1})
def bill(order):
    try:
        opened = open("/dev/null")
        failures.append(None)
        raise ValueError
    except OSError as error:
        failures.append(repr(error))
    finally:
        if len(failures) == 200:
            over.set()

worker = Worker(app)
worker.start()
for _ in range(200):
    app.extensions["qconsume"].publish("billing", None)
over.wait(20)
worker.stop()
print(len(failures), [each for each in failures if each][:1])
""",
        "-W",
        "ignore::ResourceWarning",
    )
    assert done.stdout == "200 []\n", done.stderr


def test_a_listener_that_keeps_an_error_has_its_text_and_lines(
    worker_app: AppWithWorkers,
) -> None:
    from flask_qconsume import signals
    from flask_qconsume.logs import format_traceback

    kept: list[BaseException] = []

    def keep(app: t.Any, error: BaseException, **_: t.Any) -> None:
        kept.append(error)

    @worker_app.qconsume.consumer("billing", retry={"max_attempts": 1})
    def bill(order: t.Any) -> None:
        assert current_message.attempt == 1
        fail()

    with signals.message_rejected.connected_to(keep):
        worker = worker_app.start()
        worker_app.publish("billing")
        wait_for(lambda: worker.subscriptions[0].counts["reject"])
        gevent.sleep(0)

    assert "in fail\n    raise OSError" in format_traceback(kept[0])
    assert format_traceback(kept[0]).endswith("OSError: gateway down")
