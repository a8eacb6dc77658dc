"""Log lines of `run` with `QCONSUME_LOGGING`: JSON, unless the app has handlers."""

from __future__ import annotations

import json
import typing as t

import pytest

from .commands import Commands
from .test_logging import SHOP
from .test_logging import WAYS
from .test_logging import assert_once
from .test_logging import run_once

OURS = "flask_qconsume"


def read(lines: t.Iterable[str]) -> list[dict[str, t.Any]]:
    """Return the object that each line is."""
    return [json.loads(line) for line in lines]


def find(found: list[dict[str, t.Any]], logger: str, text: str) -> dict[str, t.Any]:
    """Return the one line of a logger whose message begins with a text."""
    matching = [
        each
        for each in found
        if each["logger"] == logger and each["message"].startswith(text)
    ]
    assert len(matching) == 1, (logger, text, found)
    return matching[0]


@pytest.mark.process
def test_each_line_of_a_run_is_an_object(commands: Commands) -> None:
    """The extension's lines, those of the app, requests, and tracebacks."""
    commands.config["LOGGING"] = "json"
    found = read(run_once(commands))
    handled = find(found, "store", "info 7")
    failed = find(found, f"{OURS}.dispatch", "orders.bill: message")
    assert (handled["consumer"], handled["attempt"]) == ("orders.bill", 1)
    assert handled["message_id"] == failed["message_id"] in failed["message"]
    assert failed["exception"].endswith("\nValueError: failed")
    assert (failed["level"], failed["consumer"]) == ("WARNING", "orders.bill")
    request = find(found, f"{OURS}.access", '127.0.0.1 "GET / HTTP/1.1" 200')
    assert "consumer" not in request
    assert find(found, "store", "in a request")["level"] == "ERROR"
    assert find(found, f"{OURS}.worker", "Stopped cleanly")["process"] > 0


@pytest.mark.process
def test_the_app_may_configure_its_handlers_itself(commands: Commands) -> None:
    commands.config["LOGGING"] = "json"
    lines = run_once(commands, *WAYS["dictConfig in the factory"])
    assert_once(lines, "APP [A-Z]+ ")


@pytest.mark.process
def test_the_apps_configuration_can_name_the_formatter(commands: Commands) -> None:
    """Its lines have the message without any setting."""
    at_import = (
        'DICT["formatters"]["app"] = {\n'
        '    "class": "flask_qconsume.observing.json_formatter.JsonFormatter"\n'
        "}\n"
        "logging.config.dictConfig(DICT)"
    )
    found = read(run_once(commands, at_import))
    assert find(found, "store", "info 7")["consumer"] == "orders.bill"


@pytest.mark.process
def test_the_apps_format_can_name_the_attributes(commands: Commands) -> None:
    """Also for lines outside of a message, where they are empty."""
    format = "APP %(levelname)s %(name)s %(message)s [%(qconsume_consumer)s]"
    at_import = f"FORMAT = logging.Formatter({format!r})\n"
    lines = run_once(commands, at_import, WAYS["handlers of app.logger"][1])
    shown = [line for line in lines if line.startswith("APP ")]
    assert "APP INFO store info 7 [orders.bill]" in shown
    assert "APP INFO flask_qconsume.worker Stopped cleanly []" in shown
    assert "Logging error" not in "\n".join(lines)


def test_so_are_the_lines_of_a_supervising_process(on_redis: Commands) -> None:
    (on_redis.folder / "shop.py").write_text(
        SHOP.format(at_import="", in_the_factory="")
    )
    on_redis.config["LOGGING"] = "json"
    with on_redis.start(
        "run", "--processes", "2", "--web", "127.0.0.1:0"
    ) as supervisor:
        supervisor.wait_for("consuming the queue 'bill'", 2)
        assert supervisor.end() == 0
    found = read(supervisor.output.splitlines())
    listening = find(found, f"{OURS}.run", "Listening on")
    stopped = [each for each in found if each["message"] == "Stopped cleanly"]
    assert listening["process"] == supervisor.pid
    assert len({each["process"] for each in [*stopped, listening]}) == 3


@pytest.mark.process
def test_a_missing_package_is_named(commands: Commands) -> None:
    (commands.folder / "pythonjsonlogger.py").write_text("raise ImportError('no')")
    commands.config["LOGGING"] = "json"
    done = commands.run("run")
    assert done.returncode == 1
    assert "pip install 'Flask-QConsume[logs]'" in done.stderr
    assert "Traceback" not in done.stderr
