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
    """A :class:`~flask_qconsume.testing.client.TestClient` for the ``app`` fixture."""
    from .client import TestClient

    return TestClient(app)


@pytest.fixture
def qconsume_published(qconsume_client: TestClient) -> Iterator[list[Published]]:
    """The messages that the app publishes during the test; none of them is sent."""
    with qconsume_client.capture() as published:
        yield published
