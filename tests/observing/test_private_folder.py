"""The metric folder that a parent offers to its children, and what a kill leaves."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
from flask import Flask

from flask_qconsume import QConsume
from flask_qconsume.observing import private_folder
from flask_qconsume.observing.metrics import FOLDER_VARIABLE
from flask_qconsume.observing.private_folder import offer_private_folder
from flask_qconsume.observing.private_folder import remove_private_folder
from flask_qconsume.observing.publisher_counters import PublisherCounters

from ..running.gauges import metrics_of
from .samples import scrape
from .samples import select

pytestmark = pytest.mark.process

#: A parent that offers a folder below PARENT, counts there, prints the folder's path,
#: and lives until it is killed. It forks a child, which lives as long as its input.
PARENT = """
import os, sys
from flask_qconsume.observing import private_folder
from flask_qconsume.observing.metrics import Metrics
from flask_qconsume.observing.publisher_counters import PublisherCounters

private_folder._MEMORY = PARENT
private_folder.offer_private_folder()
metrics = Metrics()
if WITH_CHILD and os.fork() > 0:
    os.close(1)
    sys.stdin.read()
PublisherCounters(metrics.values).count([None], 0.5)
print(metrics.folder, flush=True)
sys.stdin.read()
"""


class Parent:
    """A process that has offered a folder."""

    def __init__(self, parent: pathlib.Path, *, with_child: bool = False) -> None:
        script = f"PARENT, WITH_CHILD = {str(parent)!r}, {with_child}\n{PARENT}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.folder = pathlib.Path(self.process.stdout.readline().strip())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(autouse=True)
def parent(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> t.Iterator[pathlib.Path]:
    monkeypatch.setattr(private_folder, "_MEMORY", str(tmp_path))
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    yield tmp_path
    remove_private_folder()


@pytest.fixture
def start(parent: pathlib.Path) -> t.Iterator[t.Callable[..., Parent]]:
    started: list[Parent] = []

    def start(**options: bool) -> Parent:
        started.append(Parent(parent, **options))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_the_next_parent_removes_the_folder_of_one_that_was_killed(
    parent: pathlib.Path, start: t.Callable[..., Parent]
) -> None:
    killed, living = start(), start()
    killed.kill()
    assert killed.folder.is_dir()
    offer_private_folder()
    assert not killed.folder.exists()
    assert living.folder.is_dir()
    remove_private_folder()
    left = {living.folder.name, f"{living.folder.name}.lock"}
    assert set(os.listdir(parent)) == left


def test_a_folder_is_kept_while_children_of_a_killed_parent_count_there(
    start: t.Callable[..., Parent],
) -> None:
    killed = start(with_child=True)
    killed.kill()
    offer_private_folder()
    assert killed.folder.is_dir()


def test_a_folder_is_kept_between_two_children(parent: pathlib.Path) -> None:
    """No process counts there meanwhile."""
    offer_private_folder()
    mine = pathlib.Path(os.environ[FOLDER_VARIABLE])
    mine.mkdir()
    script = f"PARENT, WITH_CHILD = {str(parent)!r}, False\n{PARENT}"
    environment = {**os.environ, FOLDER_VARIABLE: ""}
    subprocess.run(
        [sys.executable, "-c", script],
        input="",
        text=True,
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    assert mine.is_dir()


def test_apps_of_one_process_count_apart(parent: pathlib.Path) -> None:
    offer_private_folder()
    apps = [Flask("shop"), Flask("blog")]
    for app in apps:
        app.config.update(QCONSUME_BROKER_URL="memory://", QCONSUME_METRICS=True)
        QConsume(app)
    for number, app in enumerate(apps, 1):
        PublisherCounters(metrics_of(app).values).count([None] * number, 0.5)
    for number, app in enumerate(apps, 1):
        found = select(scrape(metrics_of(app)), "qconsume_published_total")
        assert found == {("confirmed",): number}
    remove_private_folder()  # A process counts there: this one.
    assert len(list(parent.glob("*/*/*.values"))) == 2


def test_only_folders_of_the_user_with_a_lock_file_are_removed(
    parent: pathlib.Path,
) -> None:
    target = parent / "target"
    target.mkdir()
    (parent / "qconsume-metrics-alone").mkdir()
    (parent / "qconsume-metrics-link.lock").symlink_to(target / "made")
    (parent / "qconsume-metrics-link").symlink_to(target)
    (parent / "qconsume-metrics-deep.lock").touch()
    (parent / "qconsume-metrics-deep").symlink_to(target)
    offer_private_folder()
    assert target.is_dir()
    assert not (target / "made").exists()
    assert (parent / "qconsume-metrics-alone").is_dir()
