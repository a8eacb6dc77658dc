"""The folder in which processes keep their metrics: sums, dead processes, accidents."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import typing as t

import pytest

from flask_qconsume.observing.consumer_counters import ConsumerCounters
from flask_qconsume.observing.error_names import MAX_SUMMED_NAMES
from flask_qconsume.observing.metric_folder import MetricFolder
from flask_qconsume.observing.metric_table import FAILURES
from flask_qconsume.observing.metrics import Metrics
from flask_qconsume.observing.publisher_counters import PublisherCounters

from ..harness.scripts import run_script
from ..waiting import wait_for
from .samples import scrape
from .samples import select

pytestmark = pytest.mark.process

PUBLISHED = "qconsume_published_total"

#: Counts three messages in the folder PATH, in a process of its own.
COUNTING = """
import os, signal, sys
from flask_qconsume.observing.metrics import Metrics
from flask_qconsume.observing.publisher_counters import PublisherCounters

metrics = Metrics(PATH)
PublisherCounters(metrics.values).count([None, None, None], 0.5)
"""

KILLED = COUNTING + "os.kill(os.getpid(), signal.SIGKILL)"

#: Forks CHILDREN one after the other, which count and exit, or are killed.
RECYCLING = (
    COUNTING
    + """
for number in range(CHILDREN):
    child = os.fork()
    if child == 0:
        PublisherCounters(metrics.values).count([None], 0.5)
        if number % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    os.waitpid(child, 0)
"""
)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "metrics"


def run(folder: pathlib.Path, script: str) -> None:
    done = run_script(f"PATH = {str(folder)!r}\n{script}")
    assert not done.stderr, done.stderr


def count(metrics: Metrics, number: int = 1) -> None:
    PublisherCounters(metrics.values).count([None] * number, 0.5)


def published(metrics: Metrics) -> float:
    return select(scrape(metrics), PUBLISHED).get(("confirmed",), 0.0)


@pytest.mark.parametrize("script", [COUNTING, KILLED])
def test_the_counts_of_dead_processes_stay(folder: pathlib.Path, script: str) -> None:
    metrics = Metrics(str(folder))
    for _ in range(3):
        run(folder, script)
    assert published(metrics) == 9
    # The first count of this process compacts the files of the dead ones.
    count(metrics)
    assert published(metrics) == 10
    assert len(list(folder.glob("*.values"))) == 1


def test_the_folder_does_not_grow_with_recycled_processes(
    folder: pathlib.Path,
) -> None:
    run(folder, f"CHILDREN = 200\n{RECYCLING}")
    metrics = Metrics(str(folder))
    assert published(metrics) == 203
    count(metrics)
    assert published(metrics) == 204
    names = sorted(path.name.partition(".")[2] for path in folder.iterdir())
    assert names == ["", "json", "values"]  # The lock, the sums, and ours.
    assert (folder / "sums.json").stat().st_size < 2_000


def test_a_forked_child_has_a_file_of_its_own(folder: pathlib.Path) -> None:
    metrics = Metrics(str(folder))
    count(metrics)
    child = os.fork()
    if child == 0:
        count(metrics, 5)
        os._exit(0)
    os.waitpid(child, 0)
    count(metrics)
    assert published(metrics) == 7
    assert len(list(folder.glob("*.values"))) == 2


def test_a_child_does_not_keep_the_parents_lock(folder: pathlib.Path) -> None:
    """The parent is dead, also while a child that it forked lives on."""
    script = COUNTING + (
        "if os.fork() == 0:\n"
        "    os.close(1); os.close(2); sys.stdin.read(); os._exit(0)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", f"PATH = {str(folder)!r}\n{script}"],
        stdin=subprocess.PIPE,
    )
    process.wait(30)
    metrics = Metrics(str(folder))
    count(metrics)
    assert len(list(folder.glob("*.values"))) == 1
    assert published(metrics) == 4
    process.communicate()


def test_sums_that_replaced_their_files_count_them_once(folder: pathlib.Path) -> None:
    """As if the compacting process was killed before it removed the files."""
    run(folder, COUNTING)
    [dead] = folder.glob("*.values")
    kept = dead.read_bytes()
    metrics = Metrics(str(folder))
    count(metrics)
    assert not dead.exists()
    dead.write_bytes(kept)
    assert published(metrics) == 4
    MetricFolder(str(folder), print).compact()
    assert not dead.exists()
    assert published(metrics) == 4


def fork(function: t.Callable[[], object]) -> int:
    """Run a function in a forked child; return how the child ended."""
    child = os.fork()
    if child == 0:
        function()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_process_killed_at_any_moment_of_a_compaction_changes_no_sum(
    folder: pathlib.Path,
) -> None:
    """A compacting child is killed before its first change to a file, its second …"""
    metrics = Metrics(str(folder))
    steps, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        for _ in range(2):  # The second one compacts the first.
            fork(lambda: count(Metrics(str(folder)), 3))
        before = published(metrics)
        steps += 1
        code = fork(lambda left=steps: compact_until(folder, left))  # type: ignore[misc]
        assert published(metrics) == before
    assert code == 0
    assert steps > 5


def compact_until(folder: pathlib.Path, left: int) -> None:
    """Compact, and be killed before so many changes of files are made."""

    def look(event: str, args: tuple[t.Any, ...]) -> None:
        nonlocal left
        if event in ("open", "os.rename", "os.remove"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    MetricFolder(str(folder), print).compact()


def test_foreign_and_damaged_files_are_named_once_and_ignored(
    folder: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics(str(folder))
    count(metrics)
    [own] = folder.glob("*.values")
    (folder / "1-cut.values").write_bytes(own.read_bytes()[:5_000])
    (folder / "1-older.values").write_bytes(b"QCMETRI0" + own.read_bytes()[8:])
    (folder / "1-empty.values").touch()
    (folder / "sums.json").write_text('{"version": 99}')
    (folder / f"{own.stem}.worker.gauges").write_text("[1")
    (folder / "notes.txt").write_text("mine")
    for _ in range(2):
        assert published(metrics) == 1
    names = ("cut", "older", "empty", "sums.json", "gauges")
    wait_for(lambda: len(caplog.messages) == len(names), message=lambda: caplog.text)
    for name in names:
        assert sum(name in text for text in caplog.messages) == 1


#: Counts three messages, shows a gauge for each line of its input, and says so.
SHOWING = (
    COUNTING
    + """
print(flush=True)
for line in sys.stdin:
    PublisherCounters(metrics.values).count([None], 0.5)
    metrics.show("worker", [])
    print(flush=True)
"""
)


class Showing:
    """A process that counts one message more, and shows its gauges, when it is told."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"PATH = {str(folder)!r}\n{SHOWING}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._await_line()

    def show(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        self._await_line()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _await_line(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"\n"


def test_processes_put_their_counts_into_a_folder_again_that_was_deleted(
    folder: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics(str(folder))
    count(metrics)
    other = Showing(folder)
    assert published(metrics) == 4
    for number in range(2):
        shutil.rmtree(folder)
        other.show()
        other.show()
        assert published(metrics) == 6 + 2 * number
    assert len(list(folder.glob("*.values"))) == 2
    other.kill()
    assert published(metrics) == 8
    MetricFolder(str(folder), print).compact()
    assert len(list(folder.glob("*.values"))) == 1
    assert published(metrics) == 8
    assert caplog.messages == []


def test_a_folder_that_cannot_be_made_again_stops_nothing(
    folder: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics(str(folder))
    count(metrics)
    shutil.rmtree(folder)
    folder.touch()
    for number in range(2):
        count(metrics)
        metrics.show("worker", [])
        assert published(metrics) == 2 + number
    wait_for(lambda: len(caplog.messages) == 2)
    for text in ("do not show all counts and gauges", "cannot be read"):
        assert sum(text in said for said in caplog.messages) == 1


def test_a_folder_that_cannot_be_made_is_said_once_and_counts_in_memory(
    folder: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.touch()  # A file; root may write into any folder.
    metrics = Metrics(str(folder))
    for _ in range(2):
        count(metrics)
        metrics.show("worker", [])
    assert published(metrics) == 2
    [said] = caplog.messages
    assert "QCONSUME_METRICS" in said


@pytest.fixture
def no_space() -> t.Iterator[None]:
    """Let no file grow beyond a kilobyte, as if the disk was full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_once_and_the_process_counts_in_memory(
    folder: pathlib.Path, caplog: pytest.LogCaptureFixture, no_space: None
) -> None:
    metrics = Metrics(str(folder))
    for _ in range(2):
        count(metrics)
    assert published(metrics) == 2
    [said] = caplog.messages
    assert "Free some space" in said
    assert list(folder.iterdir()) == []


def test_a_scrape_beside_compactions_never_sees_a_sum_decrease(
    folder: pathlib.Path,
) -> None:
    metrics = Metrics(str(folder))
    script = f"PATH, CHILDREN = {str(folder)!r}, 50\n{RECYCLING}"
    process = subprocess.Popen([sys.executable, "-c", script])
    seen = [0.0]
    while process.poll() is None:
        seen.append(published(metrics))
        assert seen[-1] >= seen[-2]
    assert published(metrics) == 53
    assert len(set(seen)) > 5


def test_the_sums_are_read_by_people_too(folder: pathlib.Path) -> None:
    run(folder, COUNTING)
    MetricFolder(str(folder), print).compact()
    document = json.loads((folder / "sums.json").read_text())
    assert [PUBLISHED, ["confirmed"], [], [3.0]] in document["series"]


def test_sums_name_so_many_classes_of_errors(folder: pathlib.Path) -> None:
    """Each process names different ones, for ever."""
    for first in range(0, 300, 40):
        fork(lambda first=first: fail(folder, first))  # type: ignore[misc]
    metrics = Metrics(str(folder))
    count(metrics)
    document = json.loads((folder / "sums.json").read_text())
    sums = {
        labels[1]: values[0]
        for name, labels, _, values in document["series"]
        if name == FAILURES.name
    }
    assert len(sums) == MAX_SUMMED_NAMES + 1
    assert sum(sums.values()) == 320
    assert sums["other"] == 320 - MAX_SUMMED_NAMES


def fail(folder: pathlib.Path, first: int) -> None:
    counters = ConsumerCounters(Metrics(str(folder)).values, "bill")
    for number in range(first, first + 40):
        counters.count_error(FAILURES, f"Error{number}")
