"""`flask qconsume run` in a process of its own."""

from __future__ import annotations

import http.client
import json
import pathlib
import signal
import threading
import time
import typing as t
import urllib.error
import urllib.request

import pytest
import redis

from ..servers.ports import free_port
from ..waiting import wait_for
from .commands import Commands
from .commands import get


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


class RequestThread(threading.Thread):
    """Thread that sends one request, and keeps its answer."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.answer = ""
        self.start()

    def run(self) -> None:
        try:
            with urllib.request.urlopen(self.url, timeout=30) as response:
                self.answer = response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                self.answer = f"failed: {error.code}"
        except OSError as error:
            self.answer = f"failed: {error}"

    def __enter__(self) -> RequestThread:
        return self

    def __exit__(self, *exc: object) -> None:
        self.join(30)


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(commands: Commands, number: signal.Signals) -> None:
    with commands.start("run") as worker:
        worker.wait_for("consuming the queue", 2)
        assert worker.end(number) == 0
    assert f"{number.name}: stopping" in worker.output
    assert worker.output.endswith("Stopped cleanly\n")


@pytest.mark.process
def test_only_the_named_consumers_run(commands: Commands) -> None:
    with commands.start("run", "orders.audit") as worker:
        worker.wait_for("consuming the queue")
        assert worker.end() == 0
    assert "queue 'audit'" in worker.output
    assert "queue 'bill'" not in worker.output


@pytest.mark.process
@pytest.mark.parametrize(
    "args", [[], ["--web", "127.0.0.1:0"], ["--processes", "2"]], ids=" ".join
)
def test_an_unknown_name_is_an_error(commands: Commands, args: list[str]) -> None:
    done = commands.run("run", "orders.bil", *args)
    assert done.returncode == 1
    assert "no consumer 'orders.bil'; did you mean 'orders.bill'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_in_use_is_an_error(commands: Commands, address: str) -> None:
    with commands.start("run", "--web", address) as worker:
        worker.wait_for("Serving on")
        done = commands.run("run", "--web", address)
        assert done.returncode == 1
        assert f"Error: Cannot listen on '{address}'" in done.stderr
        assert worker.end() == 0


def test_web_and_consumers_run_in_one_process(commands: Commands, address: str) -> None:
    with commands.start("run", "--web", address) as worker:
        worker.wait_for(f"Serving on http://{address}")
        assert get(f"http://{address}/") == {"pid": worker.pid, "gevent": True}
        assert worker.end() == 0
    assert "Web requests have priority" in worker.output


def test_garbage_collection_runs_less_often(
    commands: Commands, folder: pathlib.Path
) -> None:
    with (folder / "shop.py").open("a") as file:
        file.write(
            "\n@bp.before_worker\ndef look():\n    import gc\n"
            "    print('collects garbage after', gc.get_threshold()[0], flush=True)\n"
        )
    with commands.start("run") as worker:
        worker.wait_for("collects garbage after 10000")
        assert worker.end() == 0


def test_without_a_web_server_requests_have_no_priority(commands: Commands) -> None:
    with commands.start("run") as worker:
        worker.wait_for("Consuming")
        assert worker.end() == 0
    assert "have priority" not in worker.output


def test_running_requests_are_answered_at_a_stop(
    commands: Commands, address: str
) -> None:
    """New requests are refused meanwhile."""
    with commands.start("run", "--web", address) as worker:
        worker.wait_for("Serving on")
        with RequestThread(f"http://{address}/slow/2.0") as running:
            worker.wait_for("slow began")
            worker.send()
            worker.wait_for("stopping")
            with RequestThread(f"http://{address}/") as refused:
                pass
            assert worker.wait() == 0
    assert running.answer == "slow"
    assert "refused" in refused.answer


def test_an_idle_connection_does_not_hold_up_a_stop(
    commands: Commands, address: str
) -> None:
    """Browsers keep connections open; a stop does not wait for them."""
    with commands.start("run", "--web", address) as worker:
        worker.wait_for("Serving on")
        host, _, port = address.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        connection.request("GET", "/")
        assert connection.getresponse().read()
        began = time.monotonic()
        assert worker.end() == 0
        assert time.monotonic() - began < 5
        connection.close()


def test_requests_and_handlers_share_one_deadline(
    on_redis: Commands, address: str
) -> None:
    """Both take longer, and both are interrupted at the same deadline."""
    on_redis.config |= {"SHUTDOWN_TIMEOUT": 3}
    with on_redis.start("run", "--web", address) as worker:
        worker.wait_for("Serving on")
        with RequestThread(f"http://{address}/slow/60.0") as running:
            worker.wait_for("slow began")
            body = json.dumps({"seconds": 60})
            assert on_redis.run("publish", "order.created", body).returncode == 0
            worker.wait_for("billing begins")
            began = time.monotonic()
            assert worker.end() == 3
            took = time.monotonic() - began
    assert 3 <= took < 3 + 5
    assert "Cutting off 1 request at" in worker.output
    assert "Interrupting 1 handler at" in worker.output
    assert "failed" in running.answer


def _has_left_queue(commands: Commands) -> bool:
    """Return whether the message has left the queue."""
    with redis.Redis.from_url(commands.config["BROKER_URL"]) as client:
        return t.cast(int, client.exists("bill")) == 0


def test_a_second_signal_ends_it_at_once(on_redis: Commands) -> None:
    with on_redis.start("run") as worker:
        worker.wait_for("consuming the queue 'bill'")
        body = json.dumps({"seconds": 60})
        assert on_redis.run("publish", "order.created", body).returncode == 0
        wait_for(lambda: _has_left_queue(on_redis))
        worker.send()
        worker.wait_for("SIGTERM: stopping")
        assert worker.end() == 128 + signal.SIGTERM


def test_changed_code_is_loaded(commands: Commands, address: str) -> None:
    """The worker stops cleanly before each restart, also when the code is broken."""
    with commands.start("run", "--reload", "--web", address) as worker:
        worker.wait_for("Serving on")
        first = get(f"http://{address}/")["pid"]
        shop = commands.folder / "shop.py"
        code = shop.read_text()

        shop.write_text(code + "\nthis is no Python\n")
        worker.wait_for("waiting for a change of the code")
        assert worker.output.count("Stopped cleanly") == 1

        shop.write_text(code + "\nanything = 1\n")
        worker.wait_for("Serving on", 2)
        assert get(f"http://{address}/")["pid"] != first
        assert worker.end(signal.SIGINT) == 0
        assert worker.output.count("Stopped cleanly") == 2


def test_reload_is_for_one_process(commands: Commands) -> None:
    done = commands.run("run", "--reload", "--processes", "2")
    assert done.returncode == 2
    assert "leave out --processes" in done.stderr
