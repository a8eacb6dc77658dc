"""`flask --debug qconsume run` has a reloader and a debugger, as `flask run` has."""

from __future__ import annotations

import signal
import urllib.error
import urllib.request

import pytest

from ..servers.ports import free_port
from .commands import FLASK
from .commands import Commands
from .commands import get

DEBUG = [*FLASK, "--debug"]

FAIL = """

@bp.get("/fail")
def fail():
    secret = "of the view"
    raise ValueError("failed")
"""


@pytest.fixture
def shop(commands: Commands) -> Commands:
    path = commands.folder / "shop.py"
    path.write_text(
        path.read_text().replace("def create_app", FAIL + "\ndef create_app")
    )
    return commands


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


def request_error(address: str, **headers: str) -> str:
    """Request the view that fails, and return its error page."""
    request = urllib.request.Request(f"http://{address}/fail", headers=headers)
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(request, timeout=30)
    with e.value as answer:
        assert answer.code == 500
        return answer.read().decode()


@pytest.mark.process
def test_code_that_changes_is_loaded_and_errors_are_shown(
    shop: Commands, address: str
) -> None:
    with shop.start("run", "--web", address, command=DEBUG) as worker:
        worker.wait_for("Serving on")
        worker.wait_for("Debugger PIN:")
        first = get(f"http://{address}/")["pid"]
        page = request_error(address)
        assert "Werkzeug Debugger" in page
        assert "raise ValueError(&#34;failed&#34;)" in page
        path = shop.folder / "shop.py"
        path.write_text(path.read_text() + "\nanything = 1\n")
        worker.wait_for("Serving on", 2)
        assert get(f"http://{address}/")["pid"] != first
        assert worker.end(signal.SIGINT) == 0
        assert worker.output.count("Stopped cleanly") == 2


@pytest.mark.process
def test_the_debugger_evaluates_for_the_local_host_only(
    shop: Commands, address: str
) -> None:
    with shop.start("run", "--web", address, command=DEBUG) as worker:
        worker.wait_for("Serving on")
        assert "EVALEX = true" in request_error(address)
        assert "EVALEX = false" in request_error(address, Host="shop.example")
        assert worker.end() == 0


@pytest.mark.process
def test_both_can_be_switched_off(shop: Commands, address: str) -> None:
    options = ["--web", address, "--no-reload", "--no-debugger"]
    with shop.start("run", *options, command=DEBUG) as worker:
        worker.wait_for("Serving on")
        assert get(f"http://{address}/")["pid"] == worker.pid
        assert "Debugger" not in request_error(address)
        assert worker.end() == 0
    assert "Debugger" not in worker.output


@pytest.mark.process
def test_without_debug_mode_both_are_off(shop: Commands, address: str) -> None:
    with shop.start("run", "--web", address) as worker:
        worker.wait_for("Serving on")
        assert get(f"http://{address}/")["pid"] == worker.pid
        assert "Internal Server Error" in request_error(address)
        assert worker.end() == 0


def test_with_processes_both_are_off(on_redis: Commands, address: str) -> None:
    options = ["--processes", "2", "--web", address]
    with on_redis.start("run", *options, command=DEBUG) as supervisor:
        supervisor.wait_for("consuming the queue 'bill'", 2)
        assert supervisor.end() == 0
    assert "Debugger" not in supervisor.output


@pytest.mark.process
def test_a_debugger_is_for_one_process(commands: Commands) -> None:
    done = commands.run("run", "--debugger", "--processes", "2")
    assert done.returncode == 2
    assert (
        "--debugger works with a single process only: leave out --processes"
        in done.stderr
    )
