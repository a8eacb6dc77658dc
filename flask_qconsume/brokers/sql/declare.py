"""Tables, queues and bindings, created or checked as ``QCONSUME_DECLARE`` says."""

from __future__ import annotations

from collections.abc import Iterator

from ...broker.topology import Topology
from ...errors import TopologyMismatch
from . import statements
from .bindings import BindingRow
from .bindings import BindingTable
from .bindings import list_wanted_bindings
from .database import Database
from .database import Step
from .tables import Tables


def declare(database: Database, topology: Topology, bindings: BindingTable) -> None:
    """Create what is missing: tables, queues and bindings.

    Nothing is written if everything exists, so a user who may not create tables can
    declare them again.

    :raises TopologyMismatch: if the tables are of another program, or newer.
    """
    Tables(database).complete()
    steps = [
        Step(statements.ADD_QUEUE, {"queue_": queue})
        for queue in _find_missing_queues(topology, bindings)
    ]
    steps += [
        Step(statements.BIND, row.parameters)
        for row in _find_missing_bindings(topology, bindings)
    ]
    if steps:
        database.write([*database.lock_declarations(), *steps])


def check_declared(
    database: Database, topology: Topology, bindings: BindingTable
) -> None:
    """Check that everything exists.

    :raises TopologyMismatch: for the first thing that is missing.
    """
    Tables(database).check()
    for queue in _find_missing_queues(topology, bindings):
        raise TopologyMismatch(
            f"The queue '{queue}' is missing in the database, and 'QCONSUME_DECLARE' is"
            " 'passive'. Run 'flask qconsume declare'."
        )
    for row in _find_missing_bindings(topology, bindings):
        raise TopologyMismatch(
            f"The queue '{row.queue}' is not bound to the exchange '{row.exchange}' for"
            f" '{row.pattern}', and 'QCONSUME_DECLARE' is 'passive'. Run 'flask"
            " qconsume declare'."
        )


def check_version(database: Database) -> None:
    """Refuse tables that are newer than this release.

    :raises TopologyMismatch: with both versions.
    """
    Tables(database).check_version()


def _find_missing_queues(topology: Topology, bindings: BindingTable) -> Iterator[str]:
    existing = {row.queue for row in bindings.read("")}
    return (plan.name for plan in topology.queues if plan.name not in existing)


def _find_missing_bindings(
    topology: Topology, bindings: BindingTable
) -> Iterator[BindingRow]:
    wanted = list_wanted_bindings(topology)
    existing = {
        row
        for exchange in {row.exchange for row in wanted}
        for row in bindings.read(exchange)
    }
    return (row for row in wanted if row not in existing)
