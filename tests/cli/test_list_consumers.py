"""`flask qconsume list`."""

from __future__ import annotations

import flask
import pytest

from flask_qconsume import ConsumerBlueprint
from flask_qconsume import QConsume

from .commands import invoke
from .conftest import MakeApp


def test_each_consumer_has_a_row(make_app: MakeApp) -> None:
    result = invoke(make_app(), "list")
    assert result.exit_code == 0
    header, line, *rows = result.output.splitlines()
    assert header.split("  ")[0] == "Consumer"
    assert set(line) == {"-", " "}
    assert [row.split() for row in rows] == [
        ["orders.audit", "audit", "#", "10", "none", "shop:audit"],
        [
            *["orders.bill", "bill", "order.created,", "order.paid", "3"],
            *["6", "attempts,", "1", "s", "to", "4.3", "min", "shop:bill"],
        ],
    ]


@pytest.mark.parametrize(
    ("sort", "first"),
    [("match", "orders.bill"), ("queue", "orders.audit"), ("retry", "orders.audit")],
)
def test_rows_are_sorted_as_asked(make_app: MakeApp, sort: str, first: str) -> None:
    result = invoke(make_app(), "list", "--sort", sort)
    assert result.output.splitlines()[2].startswith(first)


def test_options_that_a_blueprint_gives_are_shown() -> None:
    app = flask.Flask(__name__)
    app.config["QCONSUME_BROKER_URL"] = "memory://"
    QConsume(app)
    blueprint = ConsumerBlueprint(
        "mails",
        __name__,
        consumer_defaults={
            "concurrency": 7,
            "timeout": 90,
            "retry": {"max_attempts": 2},
        },
    )
    blueprint.add_consumer("welcome", print, name="welcome")
    app.register_blueprint(blueprint)
    row = invoke(app, "list").output.splitlines()[2].split()
    assert row[3:8] == ["7", "2", "attempts,", "1", "s"]
    plan = " ".join(invoke(app, "plan").output.split())
    assert "7 at once in each process, 14 fetched, each for at most 90 s" in plan
    assert "1 s (each up to 50% longer), then a dead letter" in plan


def test_a_disabled_consumer_is_marked(make_app: MakeApp) -> None:
    app = make_app(CONSUMERS={"orders.audit": {"enabled": False}})
    assert "disabled" in invoke(app, "list").output


def test_an_app_without_consumers_says_so() -> None:
    app = flask.Flask(__name__)
    app.config["QCONSUME_BROKER_URL"] = "memory://"
    QConsume(app)
    assert invoke(app, "list").output.startswith("Nothing to list: the app has no")
