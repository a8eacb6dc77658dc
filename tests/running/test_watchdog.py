"""The watchdog of a real worker notices problems, logs them once, and shows them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import select
import socket
import time
import typing as t
import urllib.error
import urllib.request

import gevent
import pytest
from gevent.event import Event

from flask_qconsume import HandlerTimeout
from flask_qconsume import Retry
from flask_qconsume import WorkerError
from flask_qconsume.broker import headers
from flask_qconsume.broker.base import SuspectsStatus
from flask_qconsume.broker.link import Lane
from flask_qconsume.message import Outgoing
from flask_qconsume.native_threads import Latch
from flask_qconsume.native_threads import NativeThread
from flask_qconsume.running import connection_loop
from flask_qconsume.running import processing
from flask_qconsume.running.backoff import Backoff
from flask_qconsume.running.health import watchdog
from flask_qconsume.running.health.endpoint import Endpoint
from flask_qconsume.running.health.reporters import HealthFile
from flask_qconsume.running.health.reporters import Systemd
from flask_qconsume.running.health.verdict import Verdict
from flask_qconsume.running.process.parent import Parent
from flask_qconsume.running.sockets import listen
from flask_qconsume.running.worker import Worker

from ..waiting import spend
from ..waiting import wait_for
from .conftest import AppWithWorkers
from .outage import Outage
from .outage import play_outages


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        watchdog.Watchdog, "__init__", _with_short_interval(watchdog.Watchdog.__init__)
    )
    monkeypatch.setattr(connection_loop, "Backoff", lambda: Backoff(0.01, 0.05))


def _with_short_interval(init: t.Any) -> t.Any:
    return lambda self, worker: init(self, worker, interval=0.02)


def kinds(worker: Worker) -> list[str]:
    return [problem.kind for problem in worker.watchdog.verdict.problems]


def is_fine(worker: Worker) -> bool:
    return worker.watchdog.verdict == Verdict(live=True, ready=True)


def spin(seconds: float, told: t.Sized = (), enough: int = 1) -> None:
    """Compute, and let no other greenlet run, until enough has been told."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and len(told) < enough:
        pass


def said(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [m for m in (r.getMessage() for r in caplog.records) if text in m]


def test_a_worker_is_ready_until_its_stop(worker_app: AppWithWorkers) -> None:
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    worker = worker_app.start()
    wait_for(lambda: is_fine(worker))
    worker.quiet()
    wait_for(lambda: "stopping" in kinds(worker))
    assert worker.watchdog.verdict.live is True
    assert worker.watchdog.verdict.ready is False
    assert worker.stop() is True


def test_a_broker_that_is_away_leaves_it_live(worker_app: AppWithWorkers) -> None:
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    broker = play_outages(worker_app)
    broker.down()
    worker = worker_app.start()
    wait_for(lambda: kinds(worker) == ["disconnected", "disconnected"])
    assert (worker.watchdog.verdict.live, worker.watchdog.verdict.ready) == (
        True,
        False,
    )
    broker.up()
    wait_for(lambda: is_fine(worker))


def test_a_blocked_hub_is_noticed_while_it_is_blocked(
    worker_app: AppWithWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    worker_app.config["QCONSUME_BLOCKED_AFTER"] = 0.1
    blocked: list[Verdict] = []

    @worker_app.qconsume.consumer("billing")
    def bill(order: t.Any) -> None:
        spin(20, blocked, enough=4)

    worker = worker_app.start()
    wait_for(lambda: is_fine(worker))
    worker.watchdog.add_outlet(lambda told: told.live or blocked.append(told))
    worker_app.publish("billing")
    wait_for(lambda: worker.subscriptions[0].counts["ack"] == 1, 30)
    wait_for(lambda: is_fine(worker))
    wait_for(lambda: said(caplog, "Over: One greenlet"))

    assert len(blocked) > 3
    assert "in 'spin'" in blocked[0].problems[0].text
    (logged,) = said(caplog, "The stack:")
    assert "spin(20, blocked, enough=4)" in logged
    assert "while time.monotonic() < until" in logged


def test_messages_that_wait_while_nothing_is_read_are_noticed(
    worker_app: AppWithWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    worker_app.config["QCONSUME_STALLED_AFTER"] = 0.3
    done: list[t.Any] = []
    worker_app.qconsume.add_consumer("billing", done.append, name="bill")
    broker = play_outages(worker_app)
    worker = worker_app.start()
    wait_for(lambda: is_fine(worker))
    # A connection that is there and delivers nothing, as after a lost 'basic.consume'.
    link = [link for link in broker.links if link.lane is Lane.MAIN][-1]
    link._queue = broker.store.queue("unused")
    worker_app.publish("billing", 0)
    wait_for(lambda: done == [0])  # By the read that was waiting already.
    worker_app.publish("billing", 1)
    worker_app.publish("billing", 2)
    wait_for(lambda: "starved" in kinds(worker))
    assert worker.watchdog.verdict.live is False
    wait_for(lambda: said(caplog, "bill: connected, but it has read nothing"))
    looks = worker.watchdog._looks
    wait_for(lambda: worker.watchdog._looks > looks + 3)
    assert len(said(caplog, "bill: connected, but it has read nothing")) == 1

    link.cut()
    wait_for(lambda: len(done) == 3)
    wait_for(lambda: is_fine(worker))


def test_the_number_and_age_of_suspects_are_shown(
    worker_app: AppWithWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    worker_app.config["QCONSUME_STALLED_AFTER"] = 0.6
    go = Event()

    @worker_app.qconsume.consumer("billing")
    def bill(order: t.Any) -> None:
        go.wait()

    broker = play_outages(worker_app)
    worker = worker_app.start()
    wait_for(lambda: [lane.waiting for lane in worker.watchdog.verdict.suspects] == [0])
    now = time.time()
    for age in (0.5, 0.4, 0.3):
        since = {headers.SUSPECTED_AT: now - age}
        suspect = Outgoing("billing.suspects", b"1", headers=since)
        assert broker.publish([suspect], 5.0) == [None]
    wait_for(lambda: [lane.waiting for lane in worker.watchdog.verdict.suspects] == [2])
    wait_for(lambda: "suspects" in kinds(worker))
    (lane,) = worker.watchdog.verdict.suspects
    assert 0.6 <= t.cast(float, lane.oldest) < 60
    assert (worker.watchdog.verdict.live, worker.watchdog.verdict.ready) == (True, True)
    wait_for(lambda: said(caplog, "bill: a suspect in 'billing.suspects' has been"))
    go.set()
    wait_for(
        lambda: [lane[1:] for lane in worker.watchdog.verdict.suspects] == [(0, None)]
    )
    wait_for(lambda: said(caplog, "Over: bill: a suspect in 'billing.suspects'"))
    assert len(said(caplog, "bill: a suspect in 'billing.suspects' has been")) == 2
    assert broker.read_suspects(
        worker_app.consumers.topology.queue("billing")
    ) == SuspectsStatus(0)


def test_a_worker_is_not_ready_before_its_subscriptions_are_looked_at(
    worker_app: AppWithWorkers,
) -> None:
    worker_app.config["QCONSUME_STALLED_AFTER"] = 0.05
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    play_outages(worker_app).down()
    verdicts: list[Verdict] = []
    worker = Worker(worker_app.app)
    worker_app.workers.append(worker)
    worker.watchdog.add_outlet(verdicts.append)
    worker.start()
    spin(0.2)  # Only the native thread looks meanwhile.
    wait_for(lambda: "disconnected" in {p.kind for v in verdicts for p in v.problems})
    assert not any(verdict.ready for verdict in verdicts)


def test_a_settler_that_is_stuck_is_noticed(worker_app: AppWithWorkers) -> None:
    worker_app.config["QCONSUME_STALLED_AFTER"] = 0.2
    stuck = Event()
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    broker = play_outages(worker_app)
    worker = worker_app.start()
    wait_for(lambda: is_fine(worker))
    link = [link for link in broker.links if link.lane is Lane.MAIN][-1]
    ack = link.ack
    link.ack = lambda deliveries: (stuck.wait(), ack(deliveries))  # type: ignore[method-assign]
    worker_app.publish("billing")
    wait_for(lambda: "unsettled" in kinds(worker))
    assert worker.watchdog.verdict.live is False
    stuck.set()
    wait_for(lambda: is_fine(worker))


def test_a_broker_that_takes_no_dead_letters_is_shown_and_leaves_it_live(
    worker_app: AppWithWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flask_qconsume import Reject
    from flask_qconsume.running import settler

    monkeypatch.setattr(settler, "Backoff", lambda: Backoff(0.01, 0.05))
    worker_app.config["QCONSUME_STALLED_AFTER"] = 0.2

    @worker_app.qconsume.consumer("billing")
    def bill(order: t.Any) -> None:
        raise Reject("no good")

    broker: Outage = play_outages(worker_app)
    broker.is_full = True
    worker = worker_app.start()
    worker_app.publish("billing")
    shown: list[Verdict] = []
    worker.watchdog.add_outlet(shown.append)
    wait_for(lambda: sum("handled 1 message" in v.to_json() for v in shown) > 50)
    # Not even while the dead letter is being tried again.
    assert all(verdict.live for verdict in shown)
    assert shown[-1].ready
    broker.is_full = False
    wait_for(lambda: is_fine(worker))


def test_a_handler_that_outlives_its_limit_is_shown(
    worker_app: AppWithWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "OVERDUE_SECONDS", 0.1)
    go = Event()

    @worker_app.qconsume.consumer("billing", timeout=0.05, concurrency=2, retry=None)
    def bill(order: t.Any) -> None:
        while not go.is_set():
            with contextlib.suppress(HandlerTimeout):
                go.wait()

    worker = worker_app.start()
    worker_app.publish("billing", 1)
    wait_for(lambda: "overdue" in kinds(worker))
    assert worker.watchdog.verdict.live is True
    worker_app.publish("billing", 2)
    wait_for(lambda: not worker.watchdog.verdict.live)
    go.set()
    wait_for(lambda: is_fine(worker))


def test_consumers_at_the_slowest_pace_for_long_are_shown(
    worker_app: AppWithWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    worker_app.config |= {
        "QCONSUME_STALLED_AFTER": 0.1,
        "QCONSUME_HUB_LATENCY": 0.05,
        "QCONSUME_LEAST_SHARE": 0.01,
    }
    over = Event()

    @worker_app.qconsume.consumer(
        "billing", retry={"min_delay": 0, "max_attempts": 1_000}
    )
    def bill(order: t.Any) -> None:
        if not over.is_set():
            raise Retry(0)

    def site() -> None:
        while not over.is_set():
            spin(0.2)
            spend(0.001)

    worker = worker_app.start(beside_web=True)
    serving = gevent.spawn(site)
    worker_app.publish("billing")
    wait_for(lambda: "slowed" in kinds(worker), timeout=60)
    assert (worker.watchdog.verdict.live, worker.watchdog.verdict.ready) == (True, True)
    over.set()
    serving.join()
    wait_for(lambda: is_fine(worker))
    wait_for(lambda: said(caplog, "Over: Messages have been begun at the slowest pace"))
    (record,) = (r for r in caplog.records if "QCONSUME_LEAST_SHARE" in r.getMessage())
    assert record.levelno == logging.WARNING


def test_a_connection_loop_that_ended_by_an_error_is_noticed(
    worker_app: AppWithWorkers,
) -> None:
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    worker = worker_app.start()
    wait_for(lambda: is_fine(worker))
    loop = worker.subscriptions[0].connection._greenlet
    assert loop is not None
    loop.end()
    wait_for(lambda: "ended" in kinds(worker))
    assert worker.watchdog.verdict.live is False


def test_an_outlet_that_fails_is_logged_once(
    worker_app: AppWithWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[Verdict] = []

    def told(verdict: Verdict) -> None:
        tried.append(verdict)
        raise OSError("the disk is full")

    worker_app.qconsume.add_consumer("billing", print, name="bill")
    worker = worker_app.start()
    worker.watchdog.add_outlet(told)
    wait_for(lambda: len(tried) > 3)
    wait_for(lambda: said(caplog, "the disk is full"))
    assert len(said(caplog, "the disk is full")) == 1


# -- the endpoint -------------------------------------------------------------------


@pytest.fixture
def endpoint() -> t.Iterator[Endpoint]:
    endpoint = Endpoint(listen("127.0.0.1:0"), lambda: Verdict(True, False))
    endpoint.start()
    yield endpoint
    endpoint.close()


def get(url: str, method: str = "GET") -> tuple[int, str]:
    try:
        request = urllib.request.Request(url, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_endpoint_answers_both_questions(endpoint: Endpoint) -> None:
    assert get(f"{endpoint.url}/live")[0] == 200
    status, body = get(f"{endpoint.url}/ready?verbose=1")
    assert status == 503
    assert json.loads(body) == {"live": True, "ready": False, "wrong": []}
    assert get(f"{endpoint.url}/live", "HEAD") == (200, "")
    assert get(f"{endpoint.url}/")[0] == 404
    assert get(f"{endpoint.url}/live", "POST")[0] == 405


def test_the_endpoint_answers_scrapes_if_there_are_metrics(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    assert get(f"{endpoint.url}/metrics")[0] == 404

    def scrape(accept: str) -> tuple[str, bytes]:
        if "broken" in accept:
            raise OSError("the disk is gone")
        return accept.strip(), b"up 1\n" * 500_000

    scraped = Endpoint(listen("127.0.0.1:0"), lambda: Verdict(True, True), scrape)
    scraped.start()
    url = f"{scraped.url}/metrics"
    try:
        request = urllib.request.Request(url, headers={"Accept": "text/plain"})
        with urllib.request.urlopen(request, timeout=10) as response:
            assert response.headers["Content-Type"] == "text/plain"
            assert len(response.read()) == 2_500_000
        assert get(url, "HEAD") == (200, "")
        assert get(f"{scraped.url}/live")[0] == 200
        broken = urllib.request.Request(url, headers={"Accept": "broken"})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(broken, timeout=10)
        with caught.value:
            assert caught.value.code == 500
        wait_for(lambda: said(caplog, "The metrics cannot be shown"))
    finally:
        scraped.close()


def test_metrics_that_take_longer_than_a_request_may_are_sent_whole() -> None:
    """Those of 500 consumers are 3 MB, and take half a second on a free processor."""

    def scrape(accept: str) -> tuple[str, bytes]:
        Latch().wait(1.5)
        return "text/plain", b"up 1\n" * 2_000_000

    slow = Endpoint(listen("127.0.0.1:0"), lambda: Verdict(True, True), scrape)
    slow.start()
    try:
        with urllib.request.urlopen(f"{slow.url}/metrics", timeout=20) as response:
            assert len(response.read()) == 10_000_000
    finally:
        slow.close()


def test_clients_that_say_nothing_or_too_much_delay_no_answer(
    endpoint: Endpoint,
) -> None:
    address = endpoint.url.removeprefix("http://").split(":")
    clients = [
        socket.create_connection((address[0], int(address[1])), timeout=10)
        for _ in range(3)
    ]
    try:
        clients[0].sendall(b"x" * 20_000)
        clients[1].close()
        assert get(f"{endpoint.url}/live")[0] == 200
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("count", [40, 250])
def test_silent_clients_delay_no_answer(endpoint: Endpoint, count: int) -> None:
    """Probes wait for one to three seconds."""
    host, port = endpoint.url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as silent:
        for _ in range(count):
            client = socket.create_connection((host, int(port)), timeout=10)
            silent.enter_context(client)
        began = time.monotonic()
        assert get(f"{endpoint.url}/live")[0] == 200
        assert time.monotonic() - began < 3


def test_clients_have_a_second_to_ask_in_all(endpoint: Endpoint) -> None:
    host, port = endpoint.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while client.send(b"G") and not wait_readable(client, 0.1):
                pass
        assert 0.9 < time.monotonic() - began < 5


def wait_readable(client: socket.socket, timeout: float) -> bool:
    return bool(select.select([client], [], [], timeout)[0])


def test_the_endpoint_answers_while_the_hub_is_blocked(endpoint: Endpoint) -> None:
    answers: list[bytes] = []

    def ask() -> None:
        from flask_qconsume.native_threads import get_unpatched

        host, port = endpoint.url.removeprefix("http://").split(":")
        with get_unpatched("socket", "socket")() as client:
            client.connect((host, int(port)))
            client.sendall(b"GET /live HTTP/1.1\r\n\r\n")
            answers.append(client.recv(1000))

    thread = NativeThread(ask, "asks").start()
    spin(20, answers)
    assert answers[0].startswith(b"HTTP/1.1 200 OK")
    assert thread.join(5)


# -- the outlets --------------------------------------------------------------------

LIVE = Verdict(live=True, ready=True)
DEAD = Verdict(live=False, ready=False)


def test_the_file_is_written_while_it_lives(tmp_path: t.Any) -> None:
    path = tmp_path / "health"
    file = HealthFile(str(path))
    file(DEAD)
    assert not path.exists()
    file(LIVE)
    assert json.loads(path.read_text()) == {"live": True, "ready": True, "wrong": []}
    os.utime(path, (1, 1))
    file(DEAD)
    assert path.stat().st_mtime == 1
    file(LIVE)
    assert path.stat().st_mtime > 1
    file.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_refused_at_once(tmp_path: t.Any) -> None:
    with pytest.raises(WorkerError, match="Cannot write the health file"):
        HealthFile(str(tmp_path / "no" / "folder"))


OTHERS: dict[str, t.Callable[[pathlib.Path], object]] = {
    "a file": lambda path: path.write_text("my thesis"),
    "JSON": lambda path: path.write_text('{"live": true}'),
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a link": lambda path: path.symlink_to("/dev/null"),
    "a link to a file": lambda path: path.symlink_to(__file__),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_another_kind_of_file_is_not_replaced(
    tmp_path: pathlib.Path, make: t.Callable[[pathlib.Path], object]
) -> None:
    path = tmp_path / "health"
    make(path)
    before = path.lstat()
    with pytest.raises(WorkerError, match="a path that nothing else uses"):
        HealthFile(str(path))
    assert path.lstat().st_ino == before.st_ino
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_has_taken_its_place_is_left(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "health"
    file = HealthFile(str(path))
    file(LIVE)
    path.write_text("my thesis")
    with pytest.raises(ValueError, match="other contents"):
        file(LIVE)
    file.close()
    assert path.read_text() == "my thesis"
    assert list(tmp_path.iterdir()) == [path]


def test_a_verdict_that_was_left_behind_is_replaced(tmp_path: pathlib.Path) -> None:
    """Nor is a link followed that has the name of the draft."""
    path = tmp_path / "health"
    path.write_text(DEAD.to_json())
    other = tmp_path / "other"
    other.write_text("my thesis")
    (tmp_path / f".health.{os.getpid()}").symlink_to(other)
    file = HealthFile(str(path))
    file(LIVE)
    assert Verdict.from_json(path.read_text()) == LIVE
    file.close()
    assert other.read_text() == "my thesis"
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: t.Any, abstract: bool) -> None:
    address = f"@qconsume-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + address[1:] if abstract else address)
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "5", "x": "y"}
        told = Systemd.from_environment(environment)
        assert environment == {"x": "y"}
        assert told is not None
        told(DEAD)
        told.ready()
        told(LIVE)
        told.close()
        words = [systemd.recv(100) for _ in range(3)]
    assert words == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_without_systemd_there_is_no_outlet() -> None:
    assert Systemd.from_environment({}) is None


def test_a_report_that_does_not_fit_follows_later() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        parent = Parent(ours, None)
        while not parent._rest:
            parent.report(LIVE)
        received = b""
        theirs.setblocking(False)
        while b"\n" not in received[-1:] or parent._rest:
            try:
                received += theirs.recv(100_000)
            except BlockingIOError:
                parent.report(LIVE)
        lines = received.decode().splitlines()
    assert {Verdict.from_json(line) for line in lines} == {LIVE}


def test_logging_is_left_as_it_was() -> None:
    assert logging.getLogger("flask_qconsume.watchdog").handlers == []
