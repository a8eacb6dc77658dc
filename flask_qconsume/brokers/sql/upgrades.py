"""Upgrades of the tables: the steps from each version to the next one. No I/O.

Version 1 is the first one. A change of the tables in :mod:`.schema` adds one to
``VERSION`` there, and its steps here. The steps run in the transaction that also
records the new version, and before tables and indexes that are missing are created.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

from .database import Step

#: Steps by the number of the version that they upgrade.
UPGRADES: Mapping[int, Sequence[Step]] = {}
