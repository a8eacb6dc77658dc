"""The stages of the proofs, for faults one by one."""

from __future__ import annotations

from ..proofs.conftest import make_stage as make_stage
from ..proofs.conftest import pytest_collection_modifyitems as mark_brokers

pytest_collection_modifyitems = mark_brokers
