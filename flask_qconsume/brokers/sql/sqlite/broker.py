"""The broker for ``sqlite:///file``."""

from __future__ import annotations

import pathlib

from sqlalchemy.dialects import sqlite

from ....broker.topology import Topology
from ....settings import Settings
from ..broker import SqlBroker
from ..database import Database
from .capabilities import CAPABILITIES
from .database_file import DatabaseFile
from .options import find_path
from .options import read_options
from .sqlite_database import SqliteDatabase


class Sqlite(SqlBroker):
    """A broker in a file, for all processes of one host."""

    capabilities = CAPABILITIES
    create_dialect = sqlite.dialect

    def __init__(self, settings: Settings, topology: Topology) -> None:
        super().__init__(settings, topology)
        self._path = find_path(settings)
        self._options = read_options(settings.transport_options)

    def _open_database(self) -> Database:
        instance = pathlib.Path(self.settings.instance_path)
        file = DatabaseFile(self._path, self._path.is_relative_to(instance))
        return SqliteDatabase(file, self._options)
