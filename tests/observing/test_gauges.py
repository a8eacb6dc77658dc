"""Gauges that a process shows, and which other processes show as long as it lives."""

from __future__ import annotations

import pathlib

import pytest

from flask_qconsume.observing import metric_table
from flask_qconsume.observing.metrics import Metrics
from flask_qconsume.observing.series import make_gauge

from ..harness.scripts import run_script

#: Shows a gauge in the folder PATH, and prints its process id.
SHOWING = """
import os
from flask_qconsume.observing import metric_table
from flask_qconsume.observing.metrics import Metrics
from flask_qconsume.observing.series import make_gauge

metrics = Metrics(PATH)
metrics.show("worker", [make_gauge(metric_table.LIVE, 1)])
print(os.getpid())
"""


def shown(metrics: Metrics) -> dict[str, float]:
    return {
        series.name: series.values[0]
        for gauges in metrics.read().gauges
        for series in gauges.series
    }


@pytest.mark.parametrize("in_folder", [True, False])
def test_the_latest_gauges_of_each_source_are_shown(
    tmp_path: pathlib.Path, in_folder: bool
) -> None:
    metrics = Metrics(str(tmp_path / "metrics") if in_folder else None)
    live, ready = metric_table.LIVE, metric_table.READY
    lag = metric_table.QUEUE_LAG
    metrics.show("worker", [make_gauge(live, 1), make_gauge(ready, 1)])
    metrics.show("queues", [make_gauge(lag, 7, "bill", "billing")])
    assert shown(metrics) == {live.name: 1, ready.name: 1, lag.name: 7}
    metrics.show("worker", [make_gauge(live, 0)])
    assert shown(metrics) == {live.name: 0, lag.name: 7}
    metrics.show("queues", [])
    assert shown(metrics) == {live.name: 0}


def test_a_gauge_has_the_labels_of_the_table() -> None:
    with pytest.raises(ValueError, match="consumer"):
        make_gauge(metric_table.CONNECTED, 1)


@pytest.mark.process
def test_the_gauges_of_an_ended_process_are_not_shown(tmp_path: pathlib.Path) -> None:
    metrics = Metrics(str(tmp_path))
    metrics.open()
    done = run_script(f"PATH = {str(tmp_path)!r}\n{SHOWING}")
    pid = done.stdout.strip()
    assert list(tmp_path.glob(f"{pid}-*.gauges")), done.stderr
    assert shown(metrics) == {}
