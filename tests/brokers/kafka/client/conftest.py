"""Fixtures for tests of the parts of a consumer's native thread."""

from __future__ import annotations

import typing as t

import pytest

from flask_qconsume.brokers.kafka.client.shared_state import SharedState
from flask_qconsume.native_threads import ThreadNotifier


@pytest.fixture
def shared() -> t.Iterator[SharedState]:
    notifier = ThreadNotifier()
    yield SharedState(notifier)
    notifier.close()
