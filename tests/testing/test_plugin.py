"""The pytest fixtures, as an app's own tests use them: a run of pytest of its own."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parents[2]

USED = """
    import pytest
    from flask import Flask

    from flask_qconsume import Ack, QConsume

    qconsume = QConsume()

    @qconsume.consumer("billing")
    def bill(order):
        qconsume.publish("bill.sent", order)

    @pytest.fixture
    def app():
        app = Flask("shop")
        app.config["QCONSUME_BROKER_URL"] = "memory://"
        qconsume.init_app(app)
        app.add_url_rule("/", view_func=lambda: qconsume.publish("order", 1))
        return app

    def test_a_consumer(qconsume_client):
        result = qconsume_client.deliver("bill", {"id": 1})
        assert result.outcome == Ack()
        assert [each.routing_key for each in result.published] == ["bill.sent"]

    def test_a_view(client, qconsume_published):
        assert client.get("/").status_code == 200
        assert [each.body for each in qconsume_published] == [1]

    def test_another_view(client, qconsume_published):
        assert qconsume_published == []
"""


def run(tmp_path: pathlib.Path, source: str, *options: str) -> str:
    (tmp_path / "test_shop.py").write_text(textwrap.dedent(source))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    plugins = ["-p", "flask_qconsume.testing.plugin", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *options, "test_shop.py"],
        cwd=tmp_path,
        env=environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout + done.stderr


@pytest.mark.process
def test_the_fixtures_go_with_those_of_pytest_flask(tmp_path: pathlib.Path) -> None:
    said = run(tmp_path, USED, "-p", "pytest_flask.plugin")
    assert "3 passed" in said, said


@pytest.mark.process
def test_they_need_nothing_but_a_fixture_named_app(tmp_path: pathlib.Path) -> None:
    source = USED.replace("(client, ", "(app, ").replace("client.get", "app.test_")
    source = source.replace('app.test_("/")', 'app.test_client().get("/")')
    said = run(tmp_path, source)
    assert "3 passed" in said, said


@pytest.mark.process
def test_the_fixtures_are_listed_with_what_they_are(tmp_path: pathlib.Path) -> None:
    said = run(tmp_path, USED, "--fixtures")
    assert "qconsume_client" in said
    assert "the messages that the app publishes in a test; none is sent." in said
