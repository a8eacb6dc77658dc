"""Messages, and what handlers read from them."""

from __future__ import annotations

import dataclasses
import time

import pytest

from flask_qconsume import Message
from flask_qconsume.message import Outgoing


def test_an_outgoing_message_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Outgoing("q", b"").id = "7"  # type: ignore[misc]


def test_a_foreign_message_needs_nothing_but_its_bytes_and_queue() -> None:
    message = Message(b"x", "billing")
    assert (message.id, message.attempt, message.deaths) == (None, 1, 0)
    assert message.headers == {}
    assert not message.stopping.is_set()


def test_the_time_that_remains_is_never_negative() -> None:
    assert Message(b"", "q").remaining is None
    assert Message(b"", "q", deadline=time.monotonic() - 5).remaining == 0
    left = Message(b"", "q", deadline=time.monotonic() + 5).remaining
    assert left is not None and 4 < left <= 5


def test_messages_share_no_headers() -> None:
    assert Message(b"", "q").headers is not Message(b"", "q").headers
    assert Outgoing("q", b"").headers is not Outgoing("q", b"").headers
