"""``ConsumerBlueprint`` is a blueprint like any other, and takes consumers."""

from __future__ import annotations

import inspect

import pytest
from flask import Blueprint

from flask_qconsume import ConsumerBlueprint
from flask_qconsume import ConsumerScaffold
from flask_qconsume import RegistrationError
from tests.apps import consumers
from tests.apps import make_app


def test_it_is_a_blueprint_with_all_its_arguments() -> None:
    blueprint = ConsumerBlueprint(
        "orders", __name__, url_prefix="/orders", template_folder="templates"
    )
    assert isinstance(blueprint, Blueprint)

    @blueprint.get("/")
    def index() -> str:
        return "orders"

    @blueprint.consumer("billing")
    def bill(body: object) -> None: ...

    app = make_app(None, blueprint)
    assert app.test_client().get("/orders/").text == "orders"
    assert [*consumers(app)] == ["orders.bill"]


def test_its_signature_is_that_of_flask_with_the_consumers_defaults() -> None:
    own = inspect.signature(ConsumerBlueprint).parameters
    of_flask = inspect.signature(Blueprint).parameters
    assert [*own] == [*of_flask, "consumer_defaults"]
    for name, parameter in of_flask.items():
        assert own[name].default == parameter.default
        assert own[name].kind == parameter.kind


def test_its_commands_are_grouped_as_by_flask() -> None:
    blueprints = (
        ConsumerBlueprint("orders", __name__),
        ConsumerBlueprint("mail", __name__, cli_group="post"),
        ConsumerBlueprint("stock", __name__, cli_group=None),
    )
    for blueprint in blueprints:
        blueprint.cli.command(f"count-{blueprint.name}")(print)
    assert {*make_app(None, *blueprints).cli.commands} == {
        "orders",
        "post",
        "count-stock",
    }


def test_the_mixin_after_a_blueprint_is_refused() -> None:
    with pytest.raises(
        RegistrationError, match=r"'class Wrong\(ConsumerScaffold, …\)'"
    ):

        class Wrong(Blueprint, ConsumerScaffold):
            pass


def test_its_views_work_in_an_app_without_the_extension() -> None:
    from flask import Flask

    blueprint = ConsumerBlueprint("orders", __name__)
    blueprint.add_url_rule("/", view_func=lambda: "fine")
    blueprint.add_consumer("q", print, name="bill")
    app = Flask("bare")
    app.register_blueprint(blueprint)
    assert app.test_client().get("/").text == "fine"


def test_nested_blueprints_carry_their_names() -> None:
    outer = ConsumerBlueprint("outer", __name__)
    inner = ConsumerBlueprint("inner", __name__)
    inner.add_consumer("a", print, name="one")
    outer.add_consumer("b", print, name="one")
    outer.register_blueprint(inner)
    app = make_app(None)
    app.register_blueprint(outer, name="renamed")
    assert {*consumers(app)} == {"renamed.one", "renamed.inner.one"}
