"""Workers survive each fault of the catalogue, and the log names it."""

from __future__ import annotations

import re
import typing as t

import pytest

from ..fleet.clock import Clock
from ..proofs.conftest import MakeDeployment
from ..servers.fixtures import refuse
from . import brokers
from . import process
from .fault import POSTGRESQL
from .fault import SQLITE
from .fault import Fault
from .trial import RECONNECT
from .trial import make_config
from .trial import try_fault

#: Regular expressions for the log: the failure, and the remedy if the package knows it.
LOG_TEXTS: dict[str, tuple[str, ...]] = {
    "broker restarted": ("lost the connection", "consuming the queue"),
    "broker killed": ("lost the connection", "consuming the queue"),
    "connections closed by the operator": ("maintenance", "consuming the queue"),
    "queue deleted": ("its queue was deleted",),
    "locked out": ("Give the user permissions in the virtual host",),
    "permissions revoked": ("Give the user this permission",),
    "consumer timeout": ("acknowledgement",),
    "clients killed": ("lost the connection",),
    "disk full": ("lost the connection", "MISCONF"),
    "ended by a full disk": ("lost the connection",),
    "commands forbidden": (r"permissions \(ACL\)",),
}
#: Kafka's client survives lost connections. Its log depends on the time until a broker
#: answers.
KAFKA_LOG_TEXTS: dict[str, tuple[str, ...]] = {
    name: (r"Kafka does not answer|Connection refused.*it goes on",)
    for name in ("broker restarted", "broker killed")
}
#: A link to a database survives a short restart.
DATABASE_LOG_TEXTS: dict[str, tuple[str, ...]] = {
    "broker restarted": (),
    "disk full": ("full|No space left",),
}
OWN_LOG_TEXTS = {
    "kafka": KAFKA_LOG_TEXTS,
    "postgresql": DATABASE_LOG_TEXTS,
    "sqlite": DATABASE_LOG_TEXTS,
}

#: Number of workers, if a second one must take over messages.
WORKERS = {"worker halted": 2, "killed for want of memory": 2}

#: Brokers whose trials of common faults belong to the long tests: they are slow, or
#: settle by the same code as another broker. The short profile provokes faults on them
#: too.
LONG_AT = {"cluster", "classic", "redis", "postgresql", "sqlite"}


def _cases(faults: t.Iterable[Fault]) -> t.Iterator[t.Any]:
    for fault in faults:
        for broker in sorted(fault.brokers):
            is_own = fault.brokers in (POSTGRESQL, SQLITE)
            quick = fault.short and (broker not in LONG_AT or is_own)
            marks = [] if quick else [pytest.mark.long]
            yield pytest.param(fault, broker, marks=marks, id=f"{fault.name}-{broker}")


@pytest.mark.deadline(400)
@pytest.mark.parametrize(
    ("fault", "broker"), [*_cases(process.FAULTS), *_cases(brokers.FAULTS)]
)
def test_a_fault_is_survived(
    make_deployment: MakeDeployment, fault: Fault, broker: str
) -> None:
    if "clock" in fault.name and (reason := Clock.missing()):
        refuse(reason)
    deployment = make_deployment(broker, **make_config(broker))

    found = try_fault(deployment, fault, broker, workers=WORKERS.get(fault.name, 1))

    print(
        f"\n{broker}, {fault.name}: {found.confirmed} confirmed,"
        f" {found.refused} refused, {len(found.lost)} lost, {found.twice} handled"
        f" twice, back after {found.back:.1f} s, silent for {found.silence:.1f} s"
    )
    assert found.back <= RECONNECT + fault.detection
    assert fault.may_lose or not found.lost
    assert "Traceback" not in found.logs
    assert ":guest@" not in found.logs
    expected = LOG_TEXTS | OWN_LOG_TEXTS.get(broker, {})
    for text in expected.get(fault.name, ()):
        assert re.search(text, found.logs)
