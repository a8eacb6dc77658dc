"""Metrics of several worker processes on a real broker, as a scrape shows them."""

from __future__ import annotations

import os
import pathlib
import typing as t
import urllib.request

import psutil
import pytest
from flask import Flask

from flask_qconsume.extension import get_app_consumers
from flask_qconsume.integrations.metrics import metrics as metrics_view
from flask_qconsume.observing.metrics import FOLDER_VARIABLE

from ..apps import make_app
from ..fleet.workers import Fleet
from ..integrations.test_gunicorn import MakeSite
from ..integrations.test_gunicorn import Site
from ..integrations.test_gunicorn import make_site as make_site
from ..servers.ports import free_port
from ..waiting import wait_for
from .samples import Samples
from .samples import parse
from .samples import select

MESSAGES = "qconsume_messages_total"
ACKED = (MESSAGES, ("fleet.work", "ack"))

#: Messages that one worker holds: its prefetch, and one suspect.
MAX_HELD = 20 + 1


class Deployment:
    """Worker processes that count, and the address of their metrics."""

    def __init__(self, folder: pathlib.Path, url: str) -> None:
        config = {"BROKER_URL": url, "METRICS": True, "QUEUE_TYPE": "classic"}
        self.fleet = Fleet(folder, config)
        self.address = f"127.0.0.1:{free_port()}"
        self.app = make_app(broker_url=url, queue_type="classic")

    def start(self, *options: str) -> t.Any:
        return self.fleet.start("--health", self.address, *options)

    def publish(self, numbers: t.Iterable[int], **task: t.Any) -> None:
        bodies = [("work", {"n": n, **task}) for n in numbers]
        get_app_consumers(self.app).publish_many(bodies)

    def scrape(self) -> Samples:
        with urllib.request.urlopen(f"http://{self.address}/metrics") as response:
            assert response.status == 200
            return parse(response.read().decode())

    def await_acked(self, number: int) -> Samples:
        def find() -> Samples | None:
            samples = self.scrape()
            return samples if samples[ACKED] >= number else None

        return t.cast(Samples, wait_for(find, 60, message=self.fleet.logs))


@pytest.fixture
def deployment(tmp_path: pathlib.Path, rabbitmq_url: str) -> t.Iterator[Deployment]:
    made = Deployment(tmp_path, rabbitmq_url)
    yield made
    made.fleet.close()
    get_app_consumers(made.app).close()


def find_folder(process: t.Any) -> pathlib.Path:
    """Return the folder in which the children of a process count."""
    children = psutil.Process(process.pid).children()
    mapped = [each.path for child in children for each in child.memory_maps()]
    return next(pathlib.Path(p).parent for p in mapped if p.endswith(".values"))


@pytest.mark.broker
@pytest.mark.process
def test_metrics_and_ledger_differ_by_what_a_killed_process_had_in_hand(
    deployment: Deployment,
) -> None:
    run = deployment.start("--processes", "3")
    fleet, number = deployment.fleet, 3_000
    ready = "consuming the queue 'work'"
    wait_for(lambda: fleet.logs().count(ready) == 3, 60, message=fleet.logs)
    deployment.publish(range(number), seconds=0.002)
    wait_for(lambda: len(fleet.ledger.lines()) > number // 4, 60)
    victim = fleet.ledger.lines()[-1].pid
    psutil.Process(victim).kill()
    wait_for(lambda: len(set(fleet.ledger.counted())) == number, 60)
    samples = deployment.await_acked(number)

    done = len(fleet.ledger.lines())
    assert len({line.pid for line in fleet.ledger.lines()}) >= 3
    # An attempt is counted before its settlement is sent, so each message is.
    assert number <= samples[ACKED] <= number + MAX_HELD
    assert abs(samples[ACKED] - done) <= MAX_HELD
    handled = samples["qconsume_handler_seconds_count", ("fleet.work",)]
    assert handled == samples[ACKED]
    folder = find_folder(run)
    assert folder.is_dir()
    assert fleet.term(run) == 0
    assert not folder.exists()


@pytest.mark.broker
@pytest.mark.process
def test_one_process_answers_for_itself_in_both_formats(
    deployment: Deployment,
) -> None:
    run = deployment.start()
    deployment.publish(range(100))
    samples = deployment.await_acked(100)
    assert samples["qconsume_queue_seconds_count", ("fleet.work",)] == 100
    with urllib.request.urlopen(
        urllib.request.Request(
            f"http://{deployment.address}/metrics",
            headers={"Accept": "application/openmetrics-text;version=1.0.0"},
        )
    ) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics")
        assert response.read().endswith(b"# EOF\n")
    assert deployment.fleet.term(run) == 0


@pytest.mark.process
def test_the_workers_of_gunicorn_show_their_sums(
    make_site: MakeSite, redis_url: str
) -> None:
    site = make_site(redis_url, METRICS=True)
    master = site.start(workers=2)
    workers = {site.request("GET", "/") for _ in range(200)}
    assert len(workers) == 2
    for number in range(60):
        site.request("POST", f"/{number}")
    site.await_done(range(60))
    samples = wait_for(lambda: find_acked(site, 60), 30)
    assert select(samples, "qconsume_published_total") == {("confirmed",): 60}
    folder = find_folder(master)
    assert folder.is_dir()

    # The counts of a worker that gunicorn has replaced stay.
    psutil.Process(int(workers.pop())).kill()
    wait_for(lambda: site.read_output().count("consuming the queue 'work'") == 3, 40)
    assert find_acked(site, 60)
    assert site.fleet.term(master) == 0
    assert not folder.exists()


def find_acked(site: Site, number: int) -> Samples | None:
    samples = parse(site.request("GET", "/metrics"))
    return samples if samples[ACKED] == number else None


@pytest.mark.process
def test_workers_without_all_hooks_are_told_that_they_are_not_summed_up(
    make_site: MakeSite, tmp_path: pathlib.Path
) -> None:
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(
        "from flask_qconsume.integrations.gunicorn import post_worker_init\n"
    )
    site = make_site("memory://", METRICS=True)
    master = site.start(workers=2, config=str(config))
    assert "Each worker shows its own metrics only" in site.read_output()
    site.end(master)


@pytest.mark.parametrize(("metrics", "status"), [(True, 200), (False, 404)])
def test_an_app_mounts_the_view_where_it_likes(metrics: bool, status: int) -> None:
    app: Flask = make_app(metrics=metrics)
    app.add_url_rule("/internal/metrics", view_func=metrics_view)
    get_app_consumers(app)
    answer = app.test_client().get("/internal/metrics")
    assert answer.status_code == status
    assert os.environ.get(FOLDER_VARIABLE) is None
