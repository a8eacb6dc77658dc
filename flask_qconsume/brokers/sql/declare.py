"""Tables, queues and bindings, created or checked as ``QCONSUME_DECLARE`` says."""

from __future__ import annotations

import uuid

import sqlalchemy as sa

from ...broker.topology import Topology
from ...errors import TopologyMismatch
from . import schema
from . import statements
from .bindings import BindingTable
from .bindings import list_wanted_bindings
from .database import Database
from .database import Insert
from .database import Step


def declare(database: Database, topology: Topology) -> None:
    """Create what is missing: tables, queues and bindings."""
    lock = database.lock_declarations()
    if not has_tables(database):
        database.write([*lock, *create_tables()])
    _check_version(database)
    queues = [
        Step(statements.ADD_QUEUE, {"queue_": plan.name}) for plan in topology.queues
    ]
    bindings = [
        Step(statements.BIND, row.parameters) for row in list_wanted_bindings(topology)
    ]
    if queues:
        database.write([*lock, *queues, *bindings])


def check_declared(
    database: Database, topology: Topology, bindings: BindingTable
) -> None:
    """Check that everything exists.

    :raises TopologyMismatch: for the first thing that is missing.
    """
    if not has_tables(database):
        raise TopologyMismatch(
            f"The tables of flask_qconsume are missing in this {database.name}"
            " database, and 'QCONSUME_DECLARE' is 'passive'. Run 'flask qconsume"
            " declare' where it is 'auto'."
        )
    _check_version(database)
    existing = {row.queue for row in bindings.read("")}
    for plan in topology.queues:
        if plan.name not in existing:
            raise TopologyMismatch(
                f"The queue '{plan.name}' is missing in the database, and"
                " 'QCONSUME_DECLARE' is 'passive'. Run 'flask qconsume declare' where"
                " it is 'auto'."
            )
    for wanted in list_wanted_bindings(topology):
        if wanted not in bindings.read(wanted.exchange):
            raise TopologyMismatch(
                f"The queue '{wanted.queue}' is not bound to the exchange"
                f" '{wanted.exchange}' for '{wanted.pattern}', and 'QCONSUME_DECLARE'"
                " is 'passive'. Run 'flask qconsume declare' where it is 'auto'."
            )


def has_tables(database: Database) -> bool:
    """Return whether all tables exist."""
    return database.find_tables() >= set(schema.METADATA.tables)


def create_tables() -> list[Step | Insert]:
    """Return the steps that create tables and indexes that do not exist."""
    tables = schema.METADATA.sorted_tables
    steps: list[Step | Insert] = [
        Step(sa.schema.CreateTable(table, if_not_exists=True)) for table in tables
    ]
    steps += [
        Step(sa.schema.CreateIndex(index, if_not_exists=True))
        for table in tables
        for index in sorted(table.indexes, key=lambda index: str(index.name))
    ]
    version = sa.select(
        sa.literal(schema.VERSION), sa.bindparam("database_id_", type_=sa.Text())
    ).where(~sa.exists(sa.select(schema.SCHEMA_VERSION.c.version)))
    insert = sa.insert(schema.SCHEMA_VERSION).from_select(
        ["version", "database_id"], version
    )
    steps.append(Step(insert, {"database_id_": str(uuid.uuid4())}))
    return steps


def _check_version(database: Database) -> None:
    ((version, _), *_) = database.read(statements.READ_VERSION)
    if version > schema.VERSION:
        raise TopologyMismatch(
            f"The tables of flask_qconsume in this database have version {version},"
            f" and this release knows versions up to {schema.VERSION}. Update"
            " Flask-QConsume in this process."
        )
