"""Procrastinate's ``batch_defer``: 500 jobs a call, committed when it returns."""

from __future__ import annotations

from . import procrastinate_async

TITLE = "Procrastinate, batch_defer"
BROKERS = procrastinate_async.BROKERS

publish = procrastinate_async.publish_many
