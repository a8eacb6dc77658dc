"""Signals reach their receivers; a failing receiver disturbs no message."""

from __future__ import annotations

import typing as t

import pytest

from flask_qconsume import Drop
from flask_qconsume import QConsume
from flask_qconsume import signals
from flask_qconsume.handling.signals import send
from tests.apps import make_app


def test_every_signal_has_a_name_of_its_own() -> None:
    found = {name: value for name, value in vars(signals).items() if name in NAMES}
    assert {*found} == NAMES
    assert [value.name for value in found.values()] == [
        name.replace("_", "-") for name in found
    ]


NAMES = {
    "message_received",
    "message_failed",
    "message_handled",
    "message_retried",
    "message_rejected",
    "message_dropped",
    "message_published",
    "worker_started",
    "worker_stopping",
    "worker_stopped",
}


def test_receivers_of_one_app_do_not_hear_another() -> None:
    heard: list[t.Any] = []
    one, two = object(), object()

    def receive(sender: t.Any, *, clean: bool) -> None:
        heard.append((sender, clean))

    with signals.worker_stopped.connected_to(receive, one):
        send(signals.worker_stopped, two, clean=True)
        send(signals.worker_stopped, one, clean=False)
    assert heard == [(one, False)]


def test_a_receiver_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def receive(sender: t.Any) -> None:
        raise ValueError("no")

    with signals.worker_started.connected_to(receive):
        send(signals.worker_started, object())
    assert "A receiver of the signal 'worker-started' raised" in caplog.text
    assert "ValueError: no" in caplog.text


class TooLate(Drop):
    pass


def test_an_outcome_of_a_class_of_the_apps_is_told_as_its_base() -> None:
    heard: list[t.Any] = []
    qconsume = QConsume()
    qconsume.add_consumer("bill", lambda body: TooLate("an hour"), name="bill")
    app = make_app(qconsume)

    def hear(sender: t.Any, outcome: t.Any, **extra: t.Any) -> None:
        heard.append(outcome)

    with signals.message_dropped.connected_to(hear, app):
        qconsume.test_client(app).deliver("bill", {})
    assert heard == [TooLate("an hour")]
