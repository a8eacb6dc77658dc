"""River's ``InsertManyFast``: 500 jobs a call, committed when it returns."""

from __future__ import annotations

from . import river_go

TITLE = "River, InsertManyFast"
BROKERS = river_go.BROKERS

publish = river_go.publish_many
