"""Log lines of `run`: in the app's format, or else in a default format."""

from __future__ import annotations

import re

import pytest

from ..servers.ports import free_port
from .commands import Commands
from .commands import get

SHOP = """
import logging
import logging.config
import sys

from flask import Flask, current_app
from flask.logging import default_handler
from flask_qconsume import ConsumerBlueprint, QConsume

FORMAT = logging.Formatter("APP %(levelname)s %(name)s %(message)s")
DICT = {{
    "version": 1,
    "formatters": {{"app": {{"format": "APP %(levelname)s %(name)s %(message)s"}}}},
    "handlers": {{
        "app": {{
            "class": "logging.StreamHandler",
            "formatter": "app",
            "stream": "ext://flask.logging.wsgi_errors_stream",
        }}
    }},
    "root": {{"level": "INFO", "handlers": ["app"]}},
}}
{at_import}

qconsume = QConsume()
bp = ConsumerBlueprint("orders", __name__)


@bp.consumer("bill", retry={{"min_delay": 600}})
def bill(order):
    current_app.logger.info("info %s", order)
    current_app.logger.error("error %s", order)
    raise ValueError("failed")


@bp.get("/")
def index():
    current_app.logger.error("in a request")
    return {{}}


@bp.before_worker
def begin():
    qconsume.publish("bill", 7)


def create_app():
    app = Flask("store")
    app.config.from_mapping(QCONSUME_BROKER_URL="memory://")
    app.config.from_prefixed_env()
    qconsume.init_app(app)
    app.register_blueprint(bp)
{in_the_factory}
    return app
"""

HANDLER = """
handler = logging.StreamHandler()
handler.setFormatter(FORMAT)
"""

#: Ways to configure logging: code at import, and code in the factory.
WAYS = {
    "dictConfig at import": ("logging.config.dictConfig(DICT)", ""),
    "dictConfig in the factory": ("", "logging.config.dictConfig(DICT)"),
    "basicConfig at import": (
        "logging.basicConfig(format=FORMAT._fmt, level='INFO')",
        "",
    ),
    "basicConfig in the factory": (
        "",
        "logging.basicConfig(format=FORMAT._fmt, level='INFO')",
    ),
    "a handler of the root logger": (
        HANDLER + "logging.getLogger().addHandler(handler)\n"
        "logging.getLogger().setLevel('INFO')",
        "",
    ),
    "handlers of app.logger": (
        "",
        HANDLER + "app.logger.handlers = [handler]\napp.logger.setLevel('INFO')",
    ),
    "handlers of app.logger's name, at import": (
        HANDLER + "logging.getLogger('store').addHandler(handler)\n"
        "logging.getLogger('store').setLevel('INFO')",
        "",
    ),
    "Flask's handler with another format": (
        "",
        "default_handler.setFormatter(FORMAT)\napp.logger.setLevel('INFO')",
    ),
    "handlers of both loggers": (
        HANDLER + "for name in ('store', 'flask_qconsume'):\n"
        "    logging.getLogger(name).addHandler(handler)\n"
        "    logging.getLogger(name).setLevel('INFO')",
        "",
    ),
}

#: Lines that must be logged exactly once, with their loggers.
ONCE = (
    r"INFO +flask_qconsume.worker +Consuming orders.bill$",
    r"INFO +flask_qconsume.subscription +orders.bill: consuming the queue 'bill'$",
    r"INFO +store +info 7(  \[orders.bill .*)?$",
    r"ERROR +store +error 7(  \[orders.bill .*)?$",
    r"WARNING +flask_qconsume.dispatch +orders.bill: message .* \(attempt 1 of 6\)",
    r"ERROR +store +in a request$",
    r"INFO +flask_qconsume.access +127.0.0.1 \"GET / HTTP/1.1\" 200 ",
    r"INFO +flask_qconsume.worker +Stopped cleanly$",
)


def run_once(
    commands: Commands, at_import: str = "", in_the_factory: str = ""
) -> list[str]:
    """Return the lines of a run with one message and one request."""
    factory = "\n".join(f"    {line}" for line in in_the_factory.splitlines())
    shop = SHOP.format(at_import=at_import, in_the_factory=factory)
    (commands.folder / "shop.py").write_text(shop)
    address = f"127.0.0.1:{free_port()}"
    with commands.start("run", "--web", address) as worker:
        worker.wait_for("Serving on")
        worker.wait_for("ValueError: failed", 2)
        get(f"http://{address}/")
        worker.wait_for("GET / HTTP")
        assert worker.end() == 0
    return worker.output.splitlines()


def assert_once(lines: list[str], before: str) -> None:
    for pattern in ONCE:
        found = [line for line in lines if re.search(pattern, line)]
        assert len(found) == 1, (pattern, found, lines)
        assert re.match(before, found[0]), found


@pytest.mark.process
@pytest.mark.parametrize("way", WAYS)
def test_every_line_has_the_apps_format_once(commands: Commands, way: str) -> None:
    lines = run_once(commands, *WAYS[way])
    assert_once(lines, "APP [A-Z]+ ")
    assert sum(line.count("APP ") for line in lines) == len(
        [line for line in lines if line.startswith("APP ")]
    )


@pytest.mark.process
def test_without_configuration_the_default_shows_the_apps_lines_too(
    commands: Commands,
) -> None:
    """They name the message, and the first failure has a traceback."""
    lines = run_once(commands)
    assert_once(lines, r"\d{4}-\d\d-\d\d [\d:,]+ [A-Z]+ ")
    named = [
        line for line in lines if re.search(r"7  \[orders.bill .{36}, at.*1\]$", line)
    ]
    assert len(named) == 2
    assert "Traceback (most recent call last):" in lines
    assert '    raise ValueError("failed")' in lines


@pytest.mark.process
def test_a_logger_created_in_the_factory_has_each_line_once(
    commands: Commands,
) -> None:
    """Flask adds a handler to it."""
    assert_once(run_once(commands, "", "app.logger"), r"\d{4}-\d\d-\d\d ")


@pytest.mark.process
def test_a_logger_with_a_handler_of_its_own_has_each_line_once(
    commands: Commands,
) -> None:
    """All other loggers use the default format."""
    handler = HANDLER + "logging.getLogger('cards').addHandler(handler)"
    begin = (
        "qconsume.before_worker(lambda: logging.getLogger('cards.visa').error('on'))"
    )
    lines = run_once(commands, handler, begin)
    assert_once(lines, r"\d{4}-\d\d-\d\d [\d:,]+ [A-Z]+ ")
    assert [line for line in lines if line.endswith(" on")] == [
        "APP ERROR cards.visa on"
    ]


@pytest.mark.process
@pytest.mark.parametrize("logger", ["", "store"])
def test_a_handler_for_errors_only_does_not_replace_the_default(
    commands: Commands, logger: str
) -> None:
    """Such a handler may send mails; without the default the worker logged nothing."""
    alert = f"{HANDLER}handler.setLevel('ERROR')\n"
    alert += f"logging.getLogger('{logger}').addHandler(handler)"
    lines = run_once(commands, alert)
    ours = [line for line in lines if not line.startswith("APP ")]
    assert_once(ours, r"\d{4}-\d\d-\d\d [\d:,]+ [A-Z]+ ")
    assert "APP ERROR store error 7" in lines


@pytest.mark.process
def test_the_levels_of_the_app_are_kept(commands: Commands) -> None:
    (commands.folder / "shop.py").write_text(
        SHOP.format(
            at_import="logging.basicConfig(format=FORMAT._fmt)", in_the_factory=""
        )
    )
    with commands.start("run") as worker:
        worker.wait_for("error 7")
        assert worker.end() == 0
    assert "info 7" not in worker.output
    assert "Consuming" not in worker.output
    assert "APP WARNING flask_qconsume.dispatch orders.bill" in worker.output


def test_children_have_the_apps_format_too(on_redis: Commands) -> None:
    shop = SHOP.format(at_import="logging.config.dictConfig(DICT)", in_the_factory="")
    (on_redis.folder / "shop.py").write_text(shop)
    with on_redis.start("run", "--processes", "2") as supervisor:
        supervisor.wait_for("consuming the queue 'bill'", 2)
        assert supervisor.end() == 0
    named = [line for line in supervisor.output.splitlines() if "flask_qcons" in line]
    logged = [line for line in named if "File " not in line]
    assert [line for line in logged if not line.startswith("APP ")] == []


@pytest.mark.process
@pytest.mark.parametrize("broken", [True, False])
def test_a_reloaded_app_configures_logging_again(
    commands: Commands, broken: bool
) -> None:
    shop = commands.folder / "shop.py"
    text = SHOP.format(at_import="logging.config.dictConfig(DICT)", in_the_factory="")
    shop.write_text("this is no Python" if broken else text)
    with commands.start("run", "--reload") as worker:
        if broken:
            worker.wait_for("waiting for a change of the code")
            shop.write_text(text)
        worker.wait_for("APP INFO flask_qconsume.worker Consuming orders.bill")
        assert worker.end() == 0
