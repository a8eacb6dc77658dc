"""Health checks of `flask qconsume run`, by HTTP, by file and by `check`."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import time
import typing as t
import urllib.error
import urllib.request

import pytest
from flask import Flask

from flask_qconsume.integrations.health import Health

from ..servers.ports import free_port
from ..waiting import wait_for
from .commands import Commands
from .commands import invoke


def get(url: str) -> tuple[int, t.Any]:
    """Return status and body; the status is 0 if the connection is refused."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
    except OSError:
        return 0, {}


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.mark.process
def test_a_blocked_hub_fails_the_liveness_check(
    commands: Commands, address: str, tmp_path: pathlib.Path
) -> None:
    """The endpoint answers meanwhile, and the worker is live again afterwards."""
    shop, over = commands.folder / "shop.py", tmp_path / "over"
    code = shop.read_text().replace("take(order", "hog(order")
    shop.write_text(code + HOG.format(over=str(over)))
    commands.config["BLOCKED_AFTER"] = 2.0
    web = f"127.0.0.1:{free_port()}"
    file = tmp_path / "health"
    with commands.start(
        "run", "--health", address, "--health-file", str(file), "--web", web
    ) as worker:
        wait_for(lambda: get(f"http://{address}/ready")[0] == 200, 40)
        wait_for(file.exists)
        done = commands.run("check", "--health", address, "--ready")
        assert (done.returncode, done.stdout) == (0, "ready: yes\n")
        done = commands.run("check", "--health-file", str(file))
        assert (done.returncode, done.stdout) == (0, "live: yes\n")

        urllib.request.urlopen(f"http://{web}/hog", timeout=10).close()
        wait_for(lambda: get(f"http://{address}/live")[0] == 503, 10)
        wrong = get(f"http://{address}/live")[1]["wrong"]
        assert "in 'hog'" in wrong[0]
        done = commands.run("check", "--health", address)
        assert (done.returncode, done.stdout) == (1, "live: no\n")
        assert "One greenlet has let no other run" in done.stderr
        over.touch()
        wait_for(lambda: get(f"http://{address}/live")[0] == 200, 20)
        worker.wait_for("Over: One greenlet has let no other run")
        assert worker.end() == 0
    assert worker.output.count("The stack:") == 1
    assert not file.exists()


HOG = """

def hog(seconds):
    while seconds and not os.access({over!r}, os.F_OK):
        pass


@bp.get("/hog")
def start_hog():
    from flask import current_app
    current_app.extensions["qconsume"].publish("order.created", {{"seconds": 1}})
    return ""
"""


@pytest.mark.process
def test_a_worker_is_live_during_an_outage_of_the_broker(
    commands: Commands, address: str
) -> None:
    commands.config["BROKER_URL"] = f"redis://127.0.0.1:{free_port()}/0"
    with commands.start("run", "--health", address) as worker:
        wait_for(lambda: "not connected" in str(get(f"http://{address}/ready")), 40)
        assert get(f"http://{address}/live")[0] == 200
        assert get(f"http://{address}/ready")[0] == 503
        assert worker.end() == 0


def test_the_supervisor_answers_for_all_children(
    on_redis: Commands, address: str
) -> None:
    on_redis.config["BLOCKED_AFTER"] = 1.0
    with on_redis.start("run", "--processes", "2", "--health", address) as parent:
        wait_for(lambda: get(f"http://{address}/ready")[0] == 200, 40)
        child = _list_children(parent.pid)[0]
        os.kill(child, signal.SIGSTOP)
        try:
            wait_for(lambda: get(f"http://{address}/live")[0] == 503, 40)
            # On a busy machine another child may have been silent for a moment, too.
            silent = f"process {child}: it has not reported for"
            wait_for(lambda: _find_wrong(address, len(silent)) == [silent], 40)
        finally:
            os.kill(child, signal.SIGCONT)
        wait_for(lambda: get(f"http://{address}/ready")[0] == 200, 40)
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: get(f"http://{address}/ready")[0] == 503, 40)
        assert get(f"http://{address}/live")[0] == 200
        wait_for(lambda: get(f"http://{address}/ready")[0] == 200, 40)
        assert parent.end() == 0
    assert get(f"http://{address}/live")[0] == 0


def _find_wrong(address: str, length: int) -> list[str]:
    """Return the beginnings of the texts about what is wrong."""
    return [text[:length] for text in get(f"http://{address}/live")[1]["wrong"]]


def _list_children(pid: int) -> list[int]:
    text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


HANGS = """

import gevent.event

bp.before_worker(lambda: gevent.event.Event().wait())
"""

#: Hangs during the import, in a child only, which gevent has patched.
IMPORTS = """

if getattr(sys.modules.get("gevent.monkey"), "saved", None):
    hang()
"""


@pytest.mark.parametrize(
    "code, args, problem",
    [
        (HANGS, [], "The worker has been starting for"),
        (HANGS, ["--processes", "1"], "The worker has been starting for"),
        (IMPORTS, ["--processes", "1"], "does not run consumers yet"),
    ],
    ids=["a hook", "a child's hook", "a child's import"],
)
def test_a_start_that_hangs_is_reported(
    on_redis: Commands, address: str, code: str, args: list[str], problem: str
) -> None:
    shop = on_redis.folder / "shop.py"
    shop.write_text(shop.read_text() + code)
    on_redis.config["START_TIMEOUT"] = 2.0

    def is_reported() -> bool:
        status, answer = get(f"http://{address}/live")
        return status == 503 and problem in answer["wrong"][0]

    with on_redis.start("run", "--health", address, *args) as worker:
        # Before, a slow child is reported by its parent, which waits for its import.
        wait_for(is_reported, 40)
        worker.wait_for(problem)
        worker.send()
        worker.wait_for("SIGTERM: stopping")


@pytest.mark.process
def test_a_wrong_address_is_an_error(commands: Commands, address: str) -> None:
    done = commands.run("run", "--health", "127.0.0.1:99999")
    assert done.returncode == 1
    assert "Cannot listen on '127.0.0.1:99999'" in done.stderr


@pytest.mark.parametrize("args", [[], ["--processes", "1"]], ids=" ".join)
def test_a_foreign_file_is_not_overwritten(
    on_redis: Commands, tmp_path: pathlib.Path, args: list[str]
) -> None:
    path = tmp_path / "thesis"
    path.write_text("my thesis")
    done = on_redis.run("run", "--health-file", str(path), *args)
    assert done.returncode == 1
    error = f"Error: Cannot write the health file '{path}' (a file with other contents"
    assert error in done.stderr
    assert path.read_text() == "my thesis"


def test_a_worker_that_does_not_answer_is_not_live(address: str) -> None:
    done = invoke(Flask("any"), "check", "--health", address)
    assert done.exit_code == 1
    assert f"No worker answers on '{address}'" in done.output


def test_a_file_that_is_old_fails_the_check(tmp_path: pathlib.Path) -> None:
    app, path = Flask("any"), tmp_path / "health"
    args = ["check", "--health-file", str(path)]
    assert "No worker writes" in invoke(app, *args).output
    path.write_text('{"live": true, "ready": false, "wrong": ["the broker is away"]}')
    assert invoke(app, *args).exit_code == 0
    done = invoke(app, *args, "--ready")
    assert done.exit_code == 1
    assert "the broker is away" in done.output
    old = time.time() - 60
    os.utime(path, (old, old))
    done = invoke(app, *args)
    assert done.exit_code == 1
    assert "was written 60 s ago" in done.output
    assert invoke(app, *args, "--max-age", "2m").exit_code == 0


def test_an_address_or_a_file_is_required() -> None:
    assert invoke(Flask("any"), "check").exit_code == 2


def test_middleware_answers_within_a_wsgi_server(make_app: t.Any) -> None:
    from flask_qconsume.running.worker import Worker

    app = make_app()
    app.wsgi_app = Health(app, prefix="/health")  # type: ignore[method-assign]
    client = app.test_client()
    assert client.get("/").status_code == 200
    assert client.get("/live").status_code == 404
    assert client.get("/health/live").status_code == 200
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.get_json()["wrong"] == ["No consumers run in this process."]
    worker = Worker(app)
    worker.start()
    wait_for(lambda: client.get("/health/ready").status_code == 200)
    assert worker.stop()
    assert client.get("/health/ready").status_code == 503
