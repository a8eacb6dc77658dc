"""Consumers and messages with unsupported options are refused beforehand."""

from __future__ import annotations

import dataclasses
import typing as t

import flask
import kombu
import pytest

from flask_qconsume import QConsume
from flask_qconsume import UnsupportedByBroker
from flask_qconsume.broker.checks import check_consumers
from flask_qconsume.broker.checks import check_messages
from flask_qconsume.broker.checks import find_unsupported
from flask_qconsume.brokers.memory import Memory
from flask_qconsume.brokers.rabbitmq.capabilities import CLASSIC
from flask_qconsume.brokers.rabbitmq.capabilities import QUORUM
from flask_qconsume.message import Outgoing
from flask_qconsume.registration.consumer import Consumer

SHORT = dataclasses.replace(Memory.capabilities, broker="Short", max_delay=60.0)


def consumers(retry: dict[str, t.Any], ordering: str | None = None) -> list[Consumer]:
    app = flask.Flask(__name__)
    app.config["QCONSUME_BROKER_URL"] = "memory://"
    qconsume = QConsume(app)
    qconsume.add_consumer(
        "queue", lambda body: None, name="one", retry=retry, ordering=ordering
    )
    return list(app.extensions["qconsume"].consumers.values())


def test_a_longer_delay_than_the_broker_can_hold_is_told() -> None:
    found = consumers({"max_attempts": 6})
    assert find_unsupported(found, SHORT) == [
        "The retry policy of the consumer 'one' waits up to 384 s, and Short can hold a"
        " message back for 60 s at the most. Lower its 'max_delay'."
    ]
    with pytest.raises(UnsupportedByBroker, match="Lower its 'max_delay'"):
        check_consumers(found, SHORT)


@pytest.mark.parametrize(
    "retry",
    [{"max_attempts": 3}, {"max_delay": 60}, {"max_attempts": 1, "min_delay": 600}],
)
def test_what_it_can_hold_is_fine(retry: dict[str, t.Any]) -> None:
    """The policy's longest delay counts, not its 'max_delay'."""
    check_consumers(consumers(retry), SHORT)


def test_an_ordering_that_the_broker_cannot_keep_is_told() -> None:
    found = consumers({}, "key")
    assert find_unsupported(found, Memory.capabilities) == [
        "The consumer 'one' has the ordering 'key', which memory cannot keep. Leave"
        " 'ordering' out, or make it 'none'."
    ]
    able = dataclasses.replace(Memory.capabilities, orderings=("none", "key"))
    assert find_unsupported(found, able) == []


def given_with_priorities(**arguments: t.Any) -> list[Consumer]:
    app = flask.Flask(__name__)
    app.config["QCONSUME_BROKER_URL"] = "memory://"
    qconsume = QConsume(app)
    queue = kombu.Queue("theirs", max_priority=9, queue_arguments=arguments)
    qconsume.add_consumer(queue, print, name="one")
    return list(app.extensions["qconsume"].consumers.values())


def test_priorities_of_a_queue_that_has_none_are_told() -> None:
    """A given classic queue may have priorities, whatever the app's queue type is."""
    classic, quorum = given_with_priorities(), {"x-queue-type": "quorum"}
    assert find_unsupported(classic, QUORUM) == []
    assert find_unsupported(classic, CLASSIC) == []
    (told,) = find_unsupported(given_with_priorities(**quorum), QUORUM)
    assert "consumer 'one' has a 'max_priority', which cannot be kept" in told
    none = dataclasses.replace(QUORUM, kind="")
    assert len(find_unsupported(classic, none)) == 1


@pytest.mark.parametrize(
    ("wish", "record"),
    [
        ({"priority": 5}, {"priorities": False}),
        ({"delay": 61.0}, {"max_delay": 60.0}),
        ({"delay": 1.0}, {"delayed_publish": False}),
        ({"exchange": "other"}, {"exchanges": False}),
    ],
)
def test_a_message_that_asks_for_too_much_is_refused(
    wish: dict[str, t.Any], record: dict[str, t.Any]
) -> None:
    able = dataclasses.replace(Memory.capabilities, max_delay=600.0)
    message = Outgoing("queue", b"1", **{"exchange": "shop", **wish})
    check_messages([message], "shop", able)
    with pytest.raises(UnsupportedByBroker, match="eave"):
        check_messages([message], "shop", dataclasses.replace(able, **record))


def test_a_delay_to_a_queue_by_its_name_is_always_fine() -> None:
    unable = dataclasses.replace(Memory.capabilities, delayed_publish=False)
    check_messages([Outgoing("queue", b"1", delay=1.0)], "shop", unable)
