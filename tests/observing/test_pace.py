"""Consuming goes on at its pace: beside frequent scrapes, and beside a full disk.

Two workers compete for the messages of one queue, so that both have the same machine at
the same time. One of them has a burden and the other one has none.
"""

from __future__ import annotations

import errno
import pathlib
import subprocess
import threading
import typing as t
import urllib.request
from collections import Counter

import pytest

from flask_qconsume.extension import get_app_consumers

from ..apps import make_app
from ..fleet.workers import Fleet
from ..servers.ports import free_port
from ..waiting import wait_for
from .samples import Samples
from .samples import parse

pytestmark = [pytest.mark.broker, pytest.mark.process]

ACKED = ("qconsume_messages_total", ("fleet.work", "ack"))

#: The least part of the messages that the worker with the burden handles. It is about
#: a half; a worker that waits for a disk or for scrapes handles next to none.
LEAST_PART = 0.2


class Race:
    """Two workers on one queue."""

    def __init__(self, folder: pathlib.Path, url: str) -> None:
        self.fleet = Fleet(folder, {"BROKER_URL": url, "METRICS": True})
        self._app = make_app(broker_url=url)

    def start(self, **config: t.Any) -> tuple[int, str]:
        """Start a worker; return its process id and the address of its metrics."""
        self.fleet.config.update(config)
        address = f"127.0.0.1:{free_port()}"
        return self.fleet.start("--health", address).pid, f"http://{address}/metrics"

    def run(self, number: int) -> Counter[int]:
        """Publish messages; return how many each process has handled, by process id."""
        bodies = [("work", {"n": n, "seconds": 0.005}) for n in range(number)]
        get_app_consumers(self._app).publish_many(bodies)
        wait_for(
            lambda: len(set(self.fleet.ledger.counted())) == number,
            90,
            message=self.fleet.logs,
        )
        lines = self.fleet.ledger.lines()
        return Counter(line.pid for line in lines if line.what == "done")

    def close(self) -> None:
        self.fleet.close()
        get_app_consumers(self._app).close()


@pytest.fixture
def race(tmp_path: pathlib.Path, redis_url: str) -> t.Iterator[Race]:
    made = Race(tmp_path, redis_url)
    yield made
    made.close()


def scrape(url: str) -> Samples:
    with urllib.request.urlopen(url, timeout=20) as response:
        return parse(response.read().decode())


class Scraper:
    """Scrapes every 100 ms, in the background."""

    def __init__(self, url: str) -> None:
        self.seen: list[float] = []
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.1):
            self.seen.append(scrape(self._url)[ACKED])


def test_a_worker_that_is_scraped_every_100_ms_handles_its_part(race: Race) -> None:
    scraped, url = race.start()
    race.start()
    with Scraper(url) as scraper:
        done = race.run(4_000)
        wait_for(lambda: scraper.seen[-1] == done[scraped], message=race.fleet.logs)
    assert done.total() == 4_000
    assert done[scraped] > LEAST_PART * done.total()
    assert scraper.seen == sorted(scraper.seen)


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> t.Iterator[pathlib.Path]:
    """A file system of a megabyte, in memory."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a file system")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "rest"
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4_096))
            except OSError as error:
                assert error.errno == errno.ENOSPC
                return path


@pytest.mark.parametrize("full_at_start", [True, False])
def test_a_worker_whose_disk_for_metrics_is_full_handles_its_part(
    race: Race, small_disk: pathlib.Path, full_at_start: bool
) -> None:
    folder = small_disk / "metrics"
    race.start()
    if full_at_start:
        fill(small_disk)
    burdened, url = race.start(METRICS=str(folder))
    if not full_at_start:
        wait_for(lambda: list(folder.glob("*.gauges")))
        fill(small_disk)
    done = race.run(4_000)
    assert done.total() == 4_000
    assert done[burdened] > LEAST_PART * done.total()
    wait_for(lambda: scrape(url)[ACKED] == done[burdened])
    said = "No space left on device"
    wait_for(lambda: said in race.fleet.logs())
    assert race.fleet.logs().count(said) == 1
