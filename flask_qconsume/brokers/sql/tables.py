"""The tables as a whole: created, completed, upgraded, and checked."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence

import sqlalchemy as sa

from ...errors import BrokerError
from ...errors import TopologyMismatch
from ...text import quote
from . import schema
from .database import Database
from .database import Step
from .schema import SCHEMA_VERSION
from .upgrades import UPGRADES

READ_VERSION = (
    sa.select(SCHEMA_VERSION.c.version, SCHEMA_VERSION.c.database_id)
    .order_by(SCHEMA_VERSION.c.version.desc())
    .limit(1)
)
#: Fails if another process has added the same version.
_ADD_VERSION = sa.insert(SCHEMA_VERSION).from_select(
    ["version", "database_id"],
    sa.select(SCHEMA_VERSION.c.version + 1, SCHEMA_VERSION.c.database_id).where(
        SCHEMA_VERSION.c.version == sa.bindparam("version_", type_=sa.Integer())
    ),
)
_ADD_FIRST_VERSION = sa.insert(SCHEMA_VERSION).from_select(
    ["version", "database_id"],
    sa.select(sa.literal_column(str(schema.VERSION)), schema.random_name()).where(
        ~sa.exists(sa.select(sa.literal_column("1")).select_from(SCHEMA_VERSION))
    ),
)

#: Names that an error lists, at most.
_MAX_LISTED_NAMES = 6


def list_names(tables: Collection[sa.Table]) -> set[str]:
    """Return the names of tables, their indexes and their columns.

    The name of a column is ``table.column``, as :meth:`.Database.find_names` returns
    it.
    """
    names = {table.name for table in tables}
    names |= {str(index.name) for table in tables for index in table.indexes}
    return names | {f"{table.name}.{c.name}" for table in tables for c in table.columns}


_TABLES = tuple(schema.METADATA.sorted_tables)
_ALL_NAMES = list_names(_TABLES)


class Tables:
    """The tables of this package in one database.

    :param upgrades: For each version, the steps that upgrade it to the next version.
    """

    def __init__(
        self, database: Database, upgrades: Mapping[int, Sequence[Step]] = UPGRADES
    ) -> None:
        self._database = database
        self._upgrades = upgrades

    def complete(self) -> None:
        """Create or upgrade what is missing; change nothing if nothing is missing.

        :raises TopologyMismatch: if the tables are of another program, or newer.
        """
        names = self._database.find_names()
        version = self._read_version(names)
        if version in {None, schema.VERSION}:
            self._check_columns(names)
        if version == schema.VERSION and names >= _ALL_NAMES:
            return
        self._write(version)
        names = self._database.find_names()
        self._check_columns(names)
        self._check_missing(names)

    def check(self) -> None:
        """Check that everything exists, in this version.

        :raises TopologyMismatch: with the names that are missing.
        """
        names = self._database.find_names()
        version = self._read_version(names)
        if version is not None and version < schema.VERSION:
            raise TopologyMismatch(
                f"The tables of flask_qconsume in this {self._database.name} database"
                f" have version {version}, and this release needs version"
                f" {schema.VERSION}. Run 'flask qconsume declare'."
            )
        self._check_columns(names)
        self._check_missing(names)

    def check_version(self) -> None:
        """Refuse tables that are newer than this release.

        :raises TopologyMismatch: with both versions.
        """
        self._read_version(self._database.find_names())

    def _read_version(self, names: Collection[str]) -> int | None:
        """Return the version of the tables; ``None`` without tables."""
        if SCHEMA_VERSION.name not in names:
            return None
        _check_table(SCHEMA_VERSION, names, self._database.name)
        return self._refuse_newer(self._database.read(READ_VERSION))

    def _refuse_newer(self, rows: Sequence[Sequence[int]]) -> int | None:
        version = rows[0][0] if rows else None
        if version is not None and version > schema.VERSION:
            raise TopologyMismatch(
                f"The tables of flask_qconsume in this {self._database.name} database"
                f" have version {version}, and this release knows versions up to"
                f" {schema.VERSION}. Update Flask-QConsume in this process."
            )
        return version

    def _write(self, version: int | None) -> None:
        """Upgrade from a version, and create what is missing, in one transaction."""
        lock = self._database.lock_declarations()
        steps = [] if version is None else self._list_upgrades(version)
        try:
            self._database.write([*lock, *steps, *create_tables()])
        except BrokerError:
            # Another process may have upgraded the tables since their version was read.
            if self._read_version(self._database.find_names()) in {None, version}:
                raise
            self._database.write([*lock, *create_tables()])

    def _list_upgrades(self, version: int) -> list[Step]:
        steps = []
        for number in range(version, schema.VERSION):
            steps.append(Step(_ADD_VERSION, {"version_": number}))
            steps += self._upgrades[number]
        return steps

    def _check_columns(self, names: Collection[str]) -> None:
        for table in _TABLES:
            if table.name in names:
                _check_table(table, names, self._database.name)

    def _check_missing(self, names: Collection[str]) -> None:
        missing = sorted(name for name in _ALL_NAMES - set(names) if "." not in name)
        if missing:
            raise TopologyMismatch(
                f"This {self._database.name} database lacks tables or indexes of"
                f" flask_qconsume: {_list(missing)}. Run 'flask qconsume declare' as a"
                " user with the permission to create them."
            )


def create_tables() -> list[Step]:
    """Return the steps that create tables and indexes that do not exist."""
    steps = [Step(schema.CreateTable(table)) for table in _TABLES]
    steps += [
        Step(sa.schema.CreateIndex(index, if_not_exists=True))
        for table in _TABLES
        for index in sorted(table.indexes, key=lambda index: str(index.name))
    ]
    return [*steps, Step(_ADD_FIRST_VERSION)]


def _check_table(table: sa.Table, names: Collection[str], database: str) -> None:
    missing = [c.name for c in table.columns if f"{table.name}.{c.name}" not in names]
    if missing:
        raise TopologyMismatch(
            f"The table '{table.name}' in this {database} database is not the one of"
            f" flask_qconsume: it lacks {_list(missing)}. Use another database, or"
            " another schema, or rename the table."
        )


def _list(names: Sequence[str]) -> str:
    rest = len(names) - _MAX_LISTED_NAMES
    listed = ", ".join(map(quote, names[:_MAX_LISTED_NAMES]))
    return f"{listed} and {rest} more" if rest > 0 else listed
