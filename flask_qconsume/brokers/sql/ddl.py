"""The SQL that declares an app's topology, as text for Alembic or an administrator."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping

import sqlalchemy as sa

from ...broker.topology import Topology
from . import schema
from .bindings import list_wanted_bindings
from .tables import create_tables


def list_ddl(dialect: sa.Dialect, topology: Topology) -> list[str]:
    """Return the statements that create what is missing: tables, queues and bindings.

    The statements may be executed again: what exists stays as it is.
    """
    # A text has no parameters, so a percent sign is not doubled in it.
    dialect.supports_native_boolean = True
    steps = [step.statement for step in create_tables()]
    rows = list(_list_rows(topology))
    return [_render(dialect, statement) for statement in steps] + [
        f"{_render(dialect, sa.insert(table).values(row))} ON CONFLICT DO NOTHING"
        for table, row in rows
    ]


def _list_rows(topology: Topology) -> Iterator[tuple[sa.Table, Mapping[str, str]]]:
    for plan in topology.queues:
        yield schema.QUEUE, {"name": plan.name}
    for row in list_wanted_bindings(topology):
        yield schema.BINDING, vars(row)


def _render(dialect: sa.Dialect, statement: sa.Executable) -> str:
    assert isinstance(statement, sa.ClauseElement)
    options = {} if isinstance(statement, sa.DDLElement) else {"literal_binds": True}
    return str(statement.compile(dialect=dialect, compile_kwargs=options)).strip()
