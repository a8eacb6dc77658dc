"""The broker for ``sqlite:///file``."""

from __future__ import annotations

from ..broker import SqlBroker
from ..database import Database
from .capabilities import CAPABILITIES
from .paths import find_path
from .sqlite_database import SqliteDatabase


class Sqlite(SqlBroker):
    """A broker in a file, for all processes of one host."""

    capabilities = CAPABILITIES

    def _open_database(self) -> Database:
        return SqliteDatabase(find_path(self.settings))
