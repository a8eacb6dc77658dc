"""The shop's own database suits its consumers."""

from __future__ import annotations

from flask import Flask

from flask_qconsume.cli import cli


def test_plan_has_nothing_to_say_of_the_database(app: Flask) -> None:
    done = app.test_cli_runner().invoke(cli, ["plan"])
    assert done.exit_code == 0, done.output
    assert "orders.bill" in done.output
    assert "Databases of the app" not in done.output
