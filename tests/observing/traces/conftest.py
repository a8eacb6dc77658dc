"""An app, a worker, and OpenTelemetry's SDK, each for one test."""

from __future__ import annotations

import typing as t

import pytest
from opentelemetry.sdk.trace import TracerProvider

from ...running.conftest import worker_app as worker_app
from .recorded import Spans
from .recorded import set_provider


@pytest.fixture
def spans() -> t.Iterator[Spans]:
    """The SDK with an exporter that keeps the spans."""
    provider = TracerProvider()
    set_provider(provider)
    yield Spans(provider)
    provider.shutdown()
    set_provider(None)
