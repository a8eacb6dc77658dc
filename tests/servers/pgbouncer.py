"""A throwaway PgBouncer, which gives each transaction to any of its sessions."""

from __future__ import annotations

import os
import pathlib
import shutil

import psycopg

from .ports import HOST
from .ports import free_port
from .postgresql import PASSWORD
from .postgresql import USER
from .postgresql import PostgreSQL
from .postgresql import as_owner
from .server import Server

_CONFIG = """
[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = {host}
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
"""


class PgBouncer(Server):
    """A pooler in front of a server; any user may log in."""

    title = "PgBouncer"

    def __init__(self, folder: pathlib.Path, server: PostgreSQL) -> None:
        super().__init__(folder)
        self.port = free_port()
        self._config = folder / "pgbouncer.ini"
        text = _CONFIG.format(
            host=HOST,
            port=server.port,
            user=USER,
            password=PASSWORD,
            own_port=self.port,
        )
        self._config.write_text(text)

    @classmethod
    def missing(cls) -> str | None:
        if _find() is None:
            return "no pgbouncer on the PATH"
        return PostgreSQL.missing()

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://{USER}:{PASSWORD}@{HOST}:{self.port}/{database}"

    def _command(self) -> list[str]:
        return [*as_owner(), str(_find()), "-q", str(self._config)]

    def _is_ready(self) -> bool:
        try:
            with psycopg.connect(self.url, connect_timeout=10):
                return True
        except psycopg.OperationalError:
            return False


def _find() -> str | None:
    folders = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    return shutil.which("pgbouncer", path=folders)
