"""Each fault of the catalogue is survived by itself, and the log says what it was."""

from __future__ import annotations

import re
import typing as t

import pytest

from ..fleet.clock import Clock
from ..proofs.conftest import MakeStage
from ..servers.fixtures import refuse
from . import brokers
from . import process
from .fault import Fault
from .trial import RECONNECT
from .trial import config_of
from .trial import undergo

#: What the log says of a fault, as regular expressions: what happened, and what to do
#: where we can say that.
SAID: dict[str, tuple[str, ...]] = {
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
#: A client of Kafka's outlives its connections, and says so; how much it says depends
#: on how soon somebody answers.
SAID_BY_KAFKA: dict[str, tuple[str, ...]] = {
    name: (r"Kafka does not answer|Connection refused.*it goes on",)
    for name in ("broker restarted", "broker killed")
}

#: Workers that are there: one whose place another one has to take needs company.
WORKERS = {"worker halted": 2, "killed for want of memory": 2}

#: Where each by itself is left to the long ones: these take long, or have a sibling
#: that settles by the same code. The short profile provokes some at each of these, too.
LONG_AT = {"cluster", "classic", "redis"}


def _cases(faults: t.Iterable[Fault]) -> t.Iterator[t.Any]:
    for fault in faults:
        for broker in sorted(fault.brokers):
            quick = fault.short and broker not in LONG_AT
            marks = [] if quick else [pytest.mark.long]
            yield pytest.param(fault, broker, marks=marks, id=f"{fault.name}-{broker}")


@pytest.mark.deadline(400)
@pytest.mark.parametrize(
    ("fault", "broker"), [*_cases(process.FAULTS), *_cases(brokers.FAULTS)]
)
def test_a_fault_is_survived(make_stage: MakeStage, fault: Fault, broker: str) -> None:
    if "clock" in fault.name and (reason := Clock.missing()):
        refuse(reason)
    stage = make_stage(broker, **config_of(broker))

    found = undergo(stage, fault, broker, workers=WORKERS.get(fault.name, 1))

    print(
        f"\n{broker}, {fault.name}: {found.confirmed} confirmed,"
        f" {found.refused} refused, {len(found.lost)} lost, {found.twice} handled"
        f" twice, back after {found.back:.1f} s, silent for {found.silence:.1f} s"
    )
    assert found.back <= RECONNECT + fault.detection
    assert fault.told_loss or not found.lost
    assert "Traceback" not in found.logs
    assert ":guest@" not in found.logs
    said = SAID | SAID_BY_KAFKA if broker == "kafka" else SAID
    for text in said.get(fault.name, ()):
        assert re.search(text, found.logs)
