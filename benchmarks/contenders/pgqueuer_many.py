"""pgqueuer's ``enqueue`` with lists: 500 jobs a call, committed when it returns."""

from __future__ import annotations

from . import pgqueuer_async

TITLE = "pgqueuer, lists"
BROKERS = pgqueuer_async.BROKERS

publish = pgqueuer_async.publish_many
