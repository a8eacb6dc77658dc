"""Consumers in the workers of a real gunicorn."""

from __future__ import annotations

import http.client
import json
import logging
import pathlib
import signal
import subprocess
import sys
import time
import types
import typing as t

import gevent
import psutil
import pytest
from flask import Flask
from gevent.pool import Pool

from flask_qconsume import QConsume
from flask_qconsume.extension import AppConsumers
from flask_qconsume.extension import get_app_consumers
from flask_qconsume.integrations import gunicorn

from ..fleet.app import create_app
from ..fleet.workers import Fleet
from ..servers import Redis
from ..servers.ports import free_port
from ..waiting import spend
from ..waiting import wait_for

CONFIG = "python:flask_qconsume.integrations.gunicorn"
APP = "tests.fleet.app:create_app()"
READY = "consuming the queue 'work'"


class Site:
    """A gunicorn that serves and consumes; each start uses the same port."""

    def __init__(self, fleet: Fleet, app: Flask) -> None:
        self.fleet = fleet
        self.app = app
        self.port = free_port()
        self.output = pathlib.Path()

    @property
    def consumers(self) -> AppConsumers:
        return get_app_consumers(self.app)

    def start(
        self,
        *options: str,
        app: str = APP,
        config: str = CONFIG,
        kind: str = "gevent",
        workers: int = 2,
        sign: str = READY,
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{self.port}"]
        command += ["-k", kind, "-w", str(workers), "-c", config, *options, app]
        master = self.fleet.spawn(command)
        self.output = master.output  # type: ignore[attr-defined]
        if sign:
            wait_for(
                lambda: (
                    self.read_output().count(sign) >= workers
                    or master.poll() is not None
                ),
                timeout=40,
                message=self.read_output,
            )
        return master

    def read_output(self) -> str:
        return self.output.read_text(errors="replace")

    def request(self, method: str, path: str) -> str:
        """Send a request, and return the body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            assert response.status == 200
            return response.read().decode()
        finally:
            connection.close()

    def end(self, master: subprocess.Popen[bytes]) -> None:
        """Stop gunicorn; its workers must end before gunicorn kills them."""
        assert self.fleet.term(master) == 0, self.read_output()
        assert "SIGKILL" not in self.read_output()

    def await_done(self, numbers: t.Iterable[int]) -> None:
        wanted = set(numbers)
        wait_for(
            lambda: wanted <= set(self.fleet.ledger.counted()),
            40,
            message=lambda: (
                f"missing: {sorted(wanted - set(self.fleet.ledger.counted()))[:10]}\n"
                f"{self.fleet.logs()[-3000:]}"
            ),
        )


MakeSite = t.Callable[..., Site]


@pytest.fixture
def make_site(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> t.Iterator[MakeSite]:
    """Function that creates a site on the broker of a URL."""
    sites: list[Site] = []
    monkeypatch.setenv("HOME", str(tmp_path))  # Gunicorn puts its control socket there.

    def make(url: str, **config: t.Any) -> Site:
        fleet = Fleet(tmp_path, {"BROKER_URL": url, **config})
        with pytest.MonkeyPatch.context() as patch:
            for key, value in fleet.environment().items():
                if key.startswith("FLASK_QCONSUME_"):
                    patch.setenv(key, value)
            sites.append(Site(fleet, create_app()))
        return sites[-1]

    yield make
    for site in sites:
        for master in site.fleet.workers:
            _end(master)
        site.consumers.close()


def _end(master: subprocess.Popen[bytes]) -> None:
    """Kill a gunicorn and its workers."""
    if master.poll() is None:
        workers = psutil.Process(master.pid).children()
        master.kill()
        master.wait(20)
        for worker in workers:
            worker.kill()


@pytest.fixture
def site(make_site: MakeSite, redis_url: str) -> Site:
    return make_site(redis_url)


class Clients:
    """Clients that place orders until they are stopped."""

    def __init__(self, site: Site, clients: int = 8) -> None:
        #: Numbers of the answered requests, and errors of failed ones by number.
        self.answered: set[int] = set()
        self.failed: dict[int, str] = {}
        self._site = site
        self._next = 0
        self._over = False
        self._pool = Pool(clients)
        for _ in range(clients):
            self._pool.spawn(self._ask)

    def _ask(self) -> None:
        while not self._over:
            n, self._next = self._next, self._next + 1
            try:
                self._site.request("POST", f"/{n}")
            except (OSError, http.client.HTTPException) as error:
                self.failed[n] = repr(error)
                spend(0.02)
            else:
                self.answered.add(n)

    def stop(self) -> None:
        self._over = True
        self._pool.join()


def test_requests_have_priority(site: Site) -> None:
    site.start(workers=1)
    assert "Web requests have priority" in site.read_output()


def check_stop_loses_nothing(site: Site) -> None:
    """Stop gunicorn while both workers have requests and messages in hand."""
    master = site.start()
    slow = range(10_000, 10_100)
    bodies = [("work", {"n": n, "seconds": 0.4}) for n in slow]
    site.consumers.publish_many(bodies)
    clients = Clients(site)
    wait_for(lambda: len(clients.answered) >= 100 and site.fleet.ledger.lines())
    site.end(master)
    clients.stop()

    wait_for(lambda: clients.failed)
    again = site.start()
    site.await_done({*slow, *clients.answered})
    site.end(again)
    counted = site.fleet.ledger.counted()
    # Only messages of answered requests have reached a handler.
    assert set(counted) == {*slow, *clients.answered}
    assert set(counted.values()) == {1}
    assert {line.attempt for line in site.fleet.ledger.lines()} == {1}


@pytest.mark.process
def test_views_publish_in_memory(make_site: MakeSite) -> None:
    site = make_site("memory://")
    master = site.start(workers=1)
    site.request("POST", "/7")
    site.await_done([7])
    site.end(master)


@pytest.mark.process
def test_a_worker_logs_json_if_asked_to(make_site: MakeSite) -> None:
    """Gunicorn's own lines too, from when the worker has loaded the app."""
    site = make_site("memory://", LOGGING="json")
    master = site.start("--access-logfile", "-", workers=1)
    site.request("POST", "/7")
    site.await_done([7])
    site.end(master)
    lines = site.read_output().splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    loggers = {each["logger"].partition(".")[0]: each for each in found}
    assert set(loggers) == {"flask_qconsume", "gunicorn"}
    access = [each for each in found if each["logger"] == "gunicorn.access"]
    assert [each["message"].split('"')[1] for each in access] == ["POST /7 HTTP/1.1"]
    ours = [line for line in lines if "flask_qconsume" in line]
    assert [line for line in ours if not line.startswith("{")] == []
    stopped = [each for each in found if each["message"] == "Stopped cleanly"]
    assert len(stopped) == 1


def test_a_stop_under_load_loses_nothing_on_redis(site: Site) -> None:
    check_stop_loses_nothing(site)


def test_a_stop_under_load_loses_nothing_on_rabbitmq(
    make_site: MakeSite, rabbitmq_url: str
) -> None:
    check_stop_loses_nothing(make_site(rabbitmq_url))


def check_recycling_loses_nothing(site: Site) -> None:
    """Let gunicorn replace each worker after a number of requests."""
    master = site.start("--max-requests", "60", "--max-requests-jitter", "10")
    slow = range(10_000, 10_050)
    bodies = [("work", {"n": n, "seconds": 0.3}) for n in slow]
    site.consumers.publish_many(bodies)
    clients = Clients(site, clients=4)
    wait_for(lambda: site.read_output().count(READY) >= 6, 60, message=site.read_output)
    clients.stop()
    site.await_done({*slow, *clients.answered})
    site.end(master)
    counted = site.fleet.ledger.counted()
    assert clients.failed == {}
    assert set(counted) == {*slow, *clients.answered}
    assert set(counted.values()) == {1}


def test_recycling_loses_nothing_on_redis(site: Site) -> None:
    check_recycling_loses_nothing(site)


def test_recycling_loses_nothing_on_rabbitmq(
    make_site: MakeSite, rabbitmq_url: str
) -> None:
    check_recycling_loses_nothing(make_site(rabbitmq_url))


def test_unfinished_messages_are_returned_within_gunicorns_time(
    make_site: MakeSite, redis_url: str
) -> None:
    """Gunicorn's timeout is shorter; the message comes back as the same attempt."""
    site = make_site(redis_url, SHUTDOWN_TIMEOUT=60)
    master = site.start("--graceful-timeout", "8")
    site.consumers.publish("work", {"n": 1, "do": "never"})
    wait_for(lambda: site.fleet.ledger.lines("start"))
    began = time.monotonic()
    site.end(master)
    assert 2 < time.monotonic() - began < 8
    assert "Interrupting 1 handler at" in site.read_output()
    site.start()
    wait_for(lambda: len(site.fleet.ledger.lines("start")) == 2)
    assert {line.attempt for line in site.fleet.ledger.lines("start")} == {1}


def test_no_handler_begins_after_the_signal(site: Site, tmp_path: pathlib.Path) -> None:
    """Gunicorn finishes a request before it calls the hook."""
    (tmp_path / "waiting.py").write_text(
        "from flask_qconsume import signals\n"
        "from tests.fleet import app as fleet\n"
        "from tests.waiting import spend\n"
        "app = fleet.create_app()\n"
        "@app.get('/wait')\n"
        "def wait():\n"
        "    print('waiting', flush=True)\n"
        "    spend(4)\n"
        "    return 'waited'\n"
        "@signals.worker_stopping.connect\n"
        "def tell(sender, **extra):\n"
        "    print('quiet', flush=True)\n"
    )
    options = ["--pythonpath", str(tmp_path)]
    master = site.start(*options, app="waiting:app", workers=1)
    waiting = gevent.spawn(site.request, "GET", "/wait")
    wait_for(lambda: "waiting\n" in site.read_output(), message=site.read_output)
    master.send_signal(signal.SIGTERM)
    wait_for(lambda: "quiet\n" in site.read_output(), message=site.read_output)
    site.consumers.publish("work", {"n": 1})
    assert waiting.get() == "waited"
    assert master.wait(20) == 0
    assert site.fleet.ledger.lines("start") == []


def test_gunicorn_handles_signals(site: Site) -> None:
    """SIGUSR1 reopens logs, and SIGHUP replaces workers; no message is lost."""
    master = site.start(workers=1)
    (worker,) = psutil.Process(master.pid).children()
    worker.send_signal(signal.SIGUSR1)
    master.send_signal(signal.SIGUSR1)
    site.request("POST", "/1")
    site.await_done([1])
    assert worker.is_running()
    master.send_signal(signal.SIGHUP)
    wait_for(lambda: site.read_output().count(READY) == 2, 40, message=site.read_output)
    site.request("POST", "/2")
    site.await_done([2])
    site.end(master)
    assert "once more ends at once" not in site.read_output()


def test_preload_is_refused_with_the_remedy(site: Site) -> None:
    master = site.start("--preload", workers=1, sign="")
    assert master.wait(40) == 3
    assert "'--preload' has imported the app in gunicorn's master" in site.read_output()
    assert "Traceback" not in site.read_output()


def test_preload_works_in_a_patched_master(site: Site, tmp_path: pathlib.Path) -> None:
    config = tmp_path / "patched.py"
    config.write_text(
        "from gevent import monkey\n"
        "monkey.patch_all()\n"
        "from flask_qconsume.integrations.gunicorn import post_worker_init\n"
        "from flask_qconsume.integrations.gunicorn import worker_exit\n"
    )
    master = site.start("--preload", config=str(config))
    site.request("POST", "/1")
    site.await_done([1])
    site.end(master)


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_other_kinds_of_workers_are_refused(site: Site, kind: str) -> None:
    master = site.start(kind=kind, workers=1, sign="")
    assert master.wait(40) == 3
    assert "Start it by 'gunicorn -k gevent" in site.read_output()
    assert "Traceback" not in site.read_output()


def test_a_wrong_configuration_stops_it_with_a_message(
    make_site: MakeSite, redis_url: str
) -> None:
    site = make_site(redis_url)
    site.fleet.config["CONSUMERS"] = {"fleet.wrk": {"concurrency": 2}}
    master = site.start(workers=1, sign="")
    assert master.wait(40) == 3
    assert "Cannot run the consumers: 'QCONSUME_CONSUMERS' names" in site.read_output()


def test_a_configuration_file_can_name_the_app_and_consumers(
    site: Site, tmp_path: pathlib.Path
) -> None:
    """Without the hook 'worker_exit' the consumers still stop."""
    config = tmp_path / "own.py"
    config.write_text(
        "from flask_qconsume.integrations.gunicorn import Hooks\n"
        "hooks = Hooks(app=lambda wsgi: wsgi.keywords['app'], names=['fleet.work'])\n"
        "post_worker_init = hooks.post_worker_init\n"
    )
    (tmp_path / "wrapped.py").write_text(
        "import functools\n"
        "from tests.fleet.app import create_app\n"
        "def serve(environ, start_response, app):\n"
        "    return app(environ, start_response)\n"
        "wsgi = functools.partial(serve, app=create_app())\n"
    )
    options = ["--pythonpath", str(tmp_path)]
    master = site.start(*options, app="wrapped:wsgi", config=str(config))
    site.request("POST", "/1")
    site.await_done([1])
    site.end(master)
    assert site.read_output().count("Stopped cleanly") == 2


def test_requests_are_served_while_the_broker_refuses_the_worker(
    make_site: MakeSite, own_redis: Redis
) -> None:
    site = make_site(own_redis.url)
    own_redis.command("CONFIG", "SET", "requirepass", "secret")
    master = site.start(sign="The consumers cannot run yet")
    assert int(site.request("GET", "/"))
    authorised = own_redis.url.replace("://", "://:secret@")
    own_redis.command("CONFIG", "SET", "requirepass", "", url=authorised)
    wait_for(lambda: site.read_output().count(READY) == 2, 30, message=site.read_output)
    site.request("POST", "/1")
    site.await_done([1])
    site.end(master)


def test_worker_exit_in_the_master_does_nothing() -> None:
    """Gunicorn calls 'worker_exit' in its master, too, for ended workers."""
    from flask_qconsume.integrations.gunicorn import worker_exit

    worker_exit(None, None)


def test_a_stop_during_the_start_is_not_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After an error gunicorn would stop as a whole."""
    app = Flask("ended")
    app.config["QCONSUME_BROKER_URL"] = "memory://"
    QConsume(app)
    host = types.SimpleNamespace(
        alive=False,
        wsgi=app,
        log=types.SimpleNamespace(error_log=logging.getLogger("gunicorn.error")),
        cfg=types.SimpleNamespace(preload_app=False, graceful_timeout=30, timeout=30),
    )
    hooks = gunicorn.Hooks()
    # The watcher runs before the worker starts, as it may on a busy machine.
    monkeypatch.setattr(gunicorn, "_spawn", lambda function, *args: function(*args))
    hooks.post_worker_init(host)
    hooks.worker_exit(None, host)
