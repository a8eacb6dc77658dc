"""The broker for ``postgresql://``."""

from __future__ import annotations

from ..broker import SqlBroker
from ..database import Database
from .capabilities import CAPABILITIES
from .postgres_database import PostgresDatabase


class PostgreSQL(SqlBroker):
    """A broker in the tables of a PostgreSQL database."""

    capabilities = CAPABILITIES

    def _open_database(self) -> Database:
        return PostgresDatabase(self.settings.broker_url)
