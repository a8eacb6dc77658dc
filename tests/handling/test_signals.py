"""Signals reach their receivers; a failing receiver disturbs no message."""

from __future__ import annotations

import typing as t

import pytest

from flask_qconsume import signals
from flask_qconsume.handling.signals import send


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
