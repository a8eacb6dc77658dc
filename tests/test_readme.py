"""What the README shows works: its code is run, its links and commands are there."""

from __future__ import annotations

import pathlib
import re
import shlex
import subprocess
import sys
import typing as t

import click
import pytest
from flask import Flask

from flask_qconsume import Ack
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume.cli import cli
from flask_qconsume.running.worker import Worker

from .waiting import wait_for

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


@pytest.fixture
def shop() -> dict[str, t.Any]:
    """The names that the app's block defines."""
    names: dict[str, t.Any] = {"__name__": "shop"}
    exec(compile(blocks("python")[0], "README.md", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def keep_messages_apart(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set the broker's file, which would be in an instance folder otherwise."""
    url = f"sqlite:///{tmp_path / 'qconsume.db'}"
    monkeypatch.setenv("FLASK_QCONSUME_BROKER_URL", url)


@pytest.fixture
def app(shop: dict[str, t.Any]) -> Flask:
    app: Flask = shop["create_app"]()
    return app


def test_the_order_of_a_request_is_published(shop: dict[str, t.Any]) -> None:
    app = shop["create_app"]()
    with shop["qconsume"].test_client(app).capture() as published:
        answer = app.test_client().post(
            "/orders/", json={"id": 7, "total": "19.90"}, headers={"X-Tenant": "acme"}
        )
    assert (answer.status_code, answer.get_json()) == (202, {"status": "queued"})
    assert [(p.routing_key, p.body, p.headers) for p in published] == [
        ("order.created", {"id": 7, "total": "19.90"}, {"tenant": "acme"})
    ]


@pytest.mark.parametrize(
    "body", [b"{", b"", b"[1]", b"null", b'{"id": "x"}', b'{"id": 7, "total": "NaN"}']
)
def test_what_is_no_order_is_the_clients_fault(
    shop: dict[str, t.Any], body: bytes
) -> None:
    app = shop["create_app"]()
    with shop["qconsume"].test_client(app).capture() as published:
        answer = app.test_client().post(
            "/orders/", data=body, content_type="application/json"
        )
    assert answer.status_code == 400
    assert published == []


def test_a_message_is_acknowledged_retried_or_rejected(
    shop: dict[str, t.Any],
) -> None:
    client = shop["qconsume"].test_client(shop["create_app"]())
    good, tenant = {"id": 7, "total": "19.90"}, {"tenant": "acme"}
    assert client.deliver("orders.bill", good, headers=tenant).outcome == Ack()
    # Without a tenant the hook raises.
    assert isinstance(client.deliver("orders.bill", good).outcome, Retry)
    last = client.deliver("orders.bill", good, attempt=5)
    assert last.outcome == Reject("failed 5 of 5 attempts")
    invalid = client.deliver("orders.bill", {"id": "x"}, headers=tenant)
    assert "Not a valid integer." in invalid.outcome.reason


@pytest.mark.process
def test_its_own_tests_pass(tmp_path: pathlib.Path) -> None:
    """By plain pytest, in the files that it names."""
    for name, text in zip(("shop.py", "test_shop.py"), blocks("python"), strict=True):
        assert f"`{name}`" in README
        (tmp_path / name).write_text(text, "utf-8")
    command = [str(pathlib.Path(sys.executable).with_name("pytest")), "test_shop.py"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "1 passed" in ended.stdout, ended.stdout


def test_what_is_published_is_consumed_by_a_worker(
    shop: dict[str, t.Any], app: Flask, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = Worker(app)
    worker.start()
    try:
        app.test_client().post("/orders/", json={"id": 7, "total": "19.90"})
        printed = [""]

        def has_printed() -> bool:
            printed[0] += capsys.readouterr().out
            return "order.created {'id': 7, 'total': '19.90'}" in printed[0]

        wait_for(has_printed, message="the audit has printed the order")
    finally:
        assert worker.stop()


def test_it_links_no_file_of_the_repository() -> None:
    """A package index shows the README without the files beside it.

    Pages of the docs have roles that nothing but Sphinx renders.
    """
    assert re.findall(r"\]\((?!https?:)[^)]+\)", README) == []


def test_the_files_that_it_names_exist() -> None:
    names = re.findall(r"`([\w.]+/|[A-Z]+\.\w+)`", README)
    assert {"docs/", "example_app/", "CONTRIBUTING.rst", "SECURITY.md"} <= set(names)
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_the_commands_it_shows_are_there() -> None:
    shown = re.findall(r"\bqconsume (\S+) ?(.*)$", "\n".join(blocks("sh")), re.M)
    assert shown
    for name, arguments in shown:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        options = {opt for param in command.params for opt in param.opts}
        used = {word for word in shlex.split(arguments) if word.startswith("--")}
        assert used <= options
