"""What a broker cannot keep of a retry policy is refused beforehand."""

from __future__ import annotations

import dataclasses
import typing as t

import flask
import pytest

from flask_qconsume import QConsume
from flask_qconsume import UnsupportedByBroker
from flask_qconsume.broker.memory import Memory
from flask_qconsume.broker.policies import check_policies
from flask_qconsume.broker.policies import unkept
from flask_qconsume.registration.consumer import Consumer

SHORT = dataclasses.replace(Memory.capabilities, broker="Short", max_delay=60.0)


def consumers(retry: dict[str, t.Any]) -> list[Consumer]:
    app = flask.Flask(__name__)
    app.config["QCONSUME_BROKER_URL"] = "memory://"
    qconsume = QConsume(app)
    qconsume.add_consumer("queue", lambda body: None, name="one", retry=retry)
    return list(app.extensions["qconsume"].consumers.values())


def test_a_longer_delay_than_the_broker_can_hold_is_told() -> None:
    found = consumers({"max_attempts": 6})
    assert unkept(found, SHORT) == [
        "The retry policy of the consumer 'one' waits up to 256 s, and Short can hold a"
        " message back for 60 s at the most. Lower its 'max_delay'."
    ]
    with pytest.raises(UnsupportedByBroker, match="Lower its 'max_delay'"):
        check_policies(found, SHORT)


@pytest.mark.parametrize(
    "retry",
    [{"max_attempts": 3}, {"max_delay": 60}, {"max_attempts": 1, "min_delay": 900}],
)
def test_what_it_can_hold_is_fine(retry: dict[str, t.Any]) -> None:
    """The longest delay counts that there is, not the one that there might be."""
    check_policies(consumers(retry), SHORT)
