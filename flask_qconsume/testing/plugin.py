"""pytest fixtures for apps; they use pytest-flask's fixture ``app``, or your own."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator

import pytest

if t.TYPE_CHECKING:
    from flask import Flask

    from .capture import Published
    from .client import TestClient


@pytest.fixture
def qconsume_client(app: Flask) -> TestClient:
    """A fixture: the :class:`~.testing.client.TestClient` for the fixture ``app``."""
    from .client import TestClient

    return TestClient(app)


@pytest.fixture
def qconsume_published(qconsume_client: TestClient) -> Iterator[list[Published]]:
    """A fixture: the messages that the app publishes in a test; none is sent."""
    with qconsume_client.capture() as published:
        yield published
