"""Hooks and error handlers of nested blueprints: which of them run, and the order."""

from __future__ import annotations

import typing as t

import pytest
from flask import Blueprint
from flask import Flask

from flask_qconsume import Ack
from flask_qconsume import ConsumerBlueprint
from flask_qconsume import ConsumerScaffold
from flask_qconsume import Drop
from flask_qconsume import QConsume
from flask_qconsume import Reject
from flask_qconsume import current_message
from flask_qconsume.handling.dispatch import Result
from flask_qconsume.handling.dispatch import dispatch
from flask_qconsume.message import Message
from tests.apps import consumers
from tests.apps import make_app


def note_all(scope: ConsumerScaffold, name: str, order: list[str]) -> None:
    """Hooks of every kind that note their scope, and an error handler that declines."""

    def error(error: BaseException) -> None:
        order.append(f"error {name}")

    scope.before_message(lambda: order.append(f"before {name}"))
    scope.after_message(lambda outcome: order.append(f"after {name}"))
    scope.teardown_message(lambda error: order.append(f"teardown {name}"))
    scope.register_message_error_handler(ValueError, error)


def failing(body: t.Any) -> None:
    raise ValueError()


def deliver(app: Flask, name: str) -> Result:
    consumer = consumers(app)[name]
    return dispatch(app, consumer, Message(b"{}", consumer.queue))


@pytest.mark.parametrize("blueprints_first", [True, False])
def test_hooks_run_from_the_app_inwards_and_back(blueprints_first: bool) -> None:
    order: list[str] = []
    qconsume = QConsume()
    outer = ConsumerBlueprint("outer", __name__)
    plain = Blueprint("plain", __name__)
    inner = ConsumerBlueprint("inner", __name__)
    sibling = ConsumerBlueprint("sibling", __name__)
    for scope, name in (
        (qconsume, "app"),
        (outer, "outer"),
        (inner, "inner"),
        (sibling, "sibling"),
    ):
        note_all(scope, name, order)
    inner.add_consumer("q", failing, name="fail")
    plain.register_blueprint(inner)
    outer.register_blueprint(plain)
    outer.register_blueprint(sibling)

    app = Flask("nested")
    app.config["QCONSUME_BROKER_URL"] = "memory://"
    if blueprints_first:
        app.register_blueprint(outer)
    qconsume.init_app(app)
    if not blueprints_first:
        app.register_blueprint(outer)

    assert [*consumers(app)] == ["outer.plain.inner.fail"]
    deliver(app, "outer.plain.inner.fail")
    assert order == [
        "before app",
        "before outer",
        "before inner",
        "error inner",
        "error outer",
        "error app",
        "after inner",
        "after outer",
        "after app",
        "teardown inner",
        "teardown outer",
        "teardown app",
    ]


def test_the_innermost_error_handler_wins_even_by_a_wider_class() -> None:
    qconsume = QConsume()
    blueprint = ConsumerBlueprint("orders", __name__)
    blueprint.add_consumer("q", failing, name="fail")

    @blueprint.message_errorhandler(Exception)
    def wide(error: Exception) -> Drop:
        return Drop("the blueprint's")

    @qconsume.message_errorhandler(ValueError)
    def exact(error: ValueError) -> Drop:
        return Drop("the app's")

    app = make_app(qconsume, blueprint)
    assert deliver(app, "orders.fail").outcome == Drop("the blueprint's")


def test_a_plain_blueprint_around_ours_has_its_name_in_the_consumers() -> None:
    plain = Blueprint("shop", __name__)
    ours = ConsumerBlueprint("orders", __name__)
    ours.add_consumer("q", print, name="bill")
    plain.register_blueprint(ours)
    assert [*consumers(make_app(None, plain))] == ["shop.orders.bill"]


def test_a_hook_of_one_blueprint_is_nothing_to_another() -> None:
    order: list[str] = []
    one, two = (ConsumerBlueprint(name, __name__) for name in ("one", "two"))
    note_all(one, "one", order)
    two.add_consumer("q", failing, name="fail")
    deliver(make_app(None, one, two), "two.fail")
    assert order == []


def test_a_before_hook_that_decides_keeps_the_inner_ones_from_running() -> None:
    order: list[str] = []
    qconsume = QConsume()
    blueprint = ConsumerBlueprint("orders", __name__)
    note_all(blueprint, "orders", order)
    blueprint.add_consumer("q", failing, name="fail")
    qconsume.before_message(lambda: Reject("closed"))
    assert deliver(make_app(qconsume, blueprint), "orders.fail").outcome == Reject(
        "closed"
    )
    assert order == ["after orders", "teardown orders"]


def test_one_blueprint_serves_two_apps() -> None:
    blueprint = ConsumerBlueprint("orders", __name__)
    seen: list[t.Any] = []
    blueprint.add_consumer("q", seen.append, name="bill")
    order: list[str] = []
    apps = []
    for number in (1, 2):
        qconsume = QConsume()
        note_all(qconsume, f"app {number}", order)
        apps.append(make_app(qconsume, blueprint, queue_prefix=f"{number}."))
    assert [consumers(app)["orders.bill"].queue for app in apps] == ["1.q", "2.q"]
    assert deliver(apps[1], "orders.bill").outcome == Ack()
    assert order == ["before app 2", "after app 2", "teardown app 2"]


def test_one_extension_serves_two_apps() -> None:
    qconsume = QConsume()
    names: list[str] = []

    @qconsume.consumer("q", name="bill")
    def bill(body: t.Any) -> None:
        from flask import current_app

        names.append(f"{current_app.config['NAME']} {current_message.queue}")

    one = make_app(qconsume, queue_prefix="one.")
    two = make_app(qconsume, queue_prefix="two.")
    one.config["NAME"], two.config["NAME"] = "first", "second"
    deliver(two, "bill")
    deliver(one, "bill")
    assert names == ["second two.q", "first one.q"]
    assert one.extensions["qconsume"] is not two.extensions["qconsume"]
    assert one.extensions["qconsume"].broker is not two.extensions["qconsume"].broker


def test_blueprints_of_one_name_in_different_parents_are_different_scopes() -> None:
    order: list[str] = []
    parents = [Blueprint(name, __name__) for name in ("a", "b")]
    for parent in parents:
        own = ConsumerBlueprint("own", __name__)
        note_all(own, parent.name, order)
        own.add_consumer(f"queue-{parent.name}", lambda body: None, name="bill")
        parent.register_blueprint(own)
    app = make_app(None, *parents)
    assert {*consumers(app)} == {"a.own.bill", "b.own.bill"}
    deliver(app, "b.own.bill")
    assert order == ["before b", "after b", "teardown b"]


def test_a_blueprint_class_of_ones_own_takes_the_scaffold() -> None:
    class Own(ConsumerScaffold, Blueprint):
        pass

    blueprint = Own("own", __name__, url_prefix="/own")
    blueprint.add_consumer("q", lambda body: Drop("own"), name="drop")

    @blueprint.get("/")
    def view() -> str:
        return "a view"

    app = make_app(None, blueprint)
    assert deliver(app, "own.drop").outcome == Drop("own")
    assert app.test_client().get("/own/").text == "a view"
