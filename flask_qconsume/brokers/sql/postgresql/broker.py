"""The broker for ``postgresql://``."""

from __future__ import annotations

from sqlalchemy.dialects import postgresql

from ....broker.topology import Topology
from ....settings import Settings
from ..broker import SqlBroker
from ..database import Database
from .capabilities import CAPABILITIES
from .options import read_options
from .postgres_database import PostgresDatabase


class PostgreSQL(SqlBroker):
    """A broker in the tables of a PostgreSQL database."""

    capabilities = CAPABILITIES
    create_dialect = postgresql.dialect

    def __init__(self, settings: Settings, topology: Topology) -> None:
        self._options = read_options(settings)
        super().__init__(settings, topology)

    def _open_database(self) -> Database:
        return PostgresDatabase(self._options)
