"""Outages are logged once for all subscriptions, and repeated ever more rarely."""

from __future__ import annotations

import logging

import pytest

from flask_qconsume.errors import BrokerRefused
from flask_qconsume.errors import BrokerUnavailable
from flask_qconsume.running.outage_log import OutageLog

from ..waiting import wait_for
from .conftest import AppWithWorkers
from .outage import play_outages

AWAY = BrokerUnavailable("nobody listens")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> OutageLog:
    return OutageLog(clock)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        f"{record.levelname} {record.getMessage()}"
        for record in caplog.records
        if record.levelno > logging.INFO
    ]


def test_an_outage_is_one_line_for_all(
    log: OutageLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("bill", "bill (suspects)", "audit"):
        log.log_failure(name, "lost the connection, connecting again", AWAY)
    clock.now += 5
    log.log_failure("bill", "not connected, trying again", AWAY)
    log.log_recovery("bill")
    log.log_recovery("audit")
    assert said(caplog) == [
        "ERROR bill: lost the connection, connecting again: nobody listens"
    ]
    log.log_recovery("bill (suspects)")
    assert said(caplog)[1:] == ["WARNING Connected again after 5 s"]


def test_an_outage_is_repeated_at_growing_intervals(
    log: OutageLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2 * 3600):
        for name in ("bill", "audit"):
            log.log_failure(name, "not connected, trying again", AWAY)
        clock.now += 1
    lines = said(caplog)
    assert lines[1:4] == [
        "ERROR bill: not connected, trying again: nobody listens"
        f" (for {after} s, 2 connections missing)"
        for after in (10, 30, 70)
    ]
    assert len(lines) == 17


def test_a_different_cause_is_logged(
    log: OutageLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    log.log_failure("bill", "not connected", AWAY)
    log.log_failure("audit", "not connected", BrokerRefused("not your queue"))
    log.log_failure("bill", "not connected", BrokerRefused("not your queue"))
    log.log_failure("stock", "not connected", ValueError("a bug"))
    assert said(caplog) == [
        "ERROR bill: not connected: nobody listens",
        "ERROR audit: not connected: not your queue",
        "ERROR stock: not connected: a bug",
    ]
    assert caplog.records[-1].exc_info


def test_every_outage_is_logged(
    log: OutageLog, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        log.log_failure("bill", "not connected", AWAY)
        log.log_recovery("bill")
    assert len(said(caplog)) == 4


def test_a_subscription_that_stayed_connected_logs_nothing(
    log: OutageLog, caplog: pytest.LogCaptureFixture
) -> None:
    log.log_recovery("bill")
    assert said(caplog) == []


def test_a_worker_with_many_consumers_logs_once(
    worker_app: AppWithWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("one", "two", "three"):
        worker_app.qconsume.add_consumer(name, print, name=name)
    broker = play_outages(worker_app)
    with caplog.at_level(logging.INFO, "flask_qconsume"):
        worker = worker_app.start()
        wait_for(lambda: worker.ready)
        caplog.clear()
        broker.down()
        wait_for(lambda: broker.refused >= 6)
        broker.up()
        wait_for(lambda: worker.ready)
    lines = said(caplog)
    assert len(lines) == 2
    assert "lost the connection to the queue" in lines[0]
    assert lines[1].startswith("WARNING Connected again after")
