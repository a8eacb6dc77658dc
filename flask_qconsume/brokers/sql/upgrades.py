"""Upgrades of the tables: the steps from each version to the next one. No I/O.

Version 1 is the first version. A change of the tables in :mod:`.schema` increases
``VERSION`` there by one, and adds its steps here. The steps run in the transaction that
also records the new version, before missing tables and indexes are created.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

from .database import Step

#: Steps by the number of the version that they upgrade.
UPGRADES: Mapping[int, Sequence[Step]] = {}
