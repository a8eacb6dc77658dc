"""Each case of the contract on each broker; no broker and no capability is missing."""

from __future__ import annotations

import typing as t

import pytest

from flask_qconsume.broker.urls import list_brokers

from ..servers.fixtures import require
from .context import CaseContext
from .contract import CASES
from .contract import Excluded
from .report import EXCLUDED
from .under_test import BROKERS


@pytest.fixture
def context(request: pytest.FixtureRequest) -> t.Iterator[CaseContext]:
    """The context of the case and the broker that the test is parametrized with."""
    params = request.node.callspec.params
    broker = BROKERS[params["broker"]]
    case = CASES[params["case"]]
    fixture = broker.own if case.breaks else broker.shared
    if fixture:
        require(fixture)
    made = CaseContext(broker(request.getfixturevalue, case.breaks))
    try:
        yield made
    finally:
        made.close()


#: Brokers on which a case runs the same code as on another broker, except for the
#: network: they belong to the long runs.
LONG = {"cluster"}


def make_marks(name: str) -> list[pytest.MarkDecorator]:
    """Return the markers of a broker's cases."""
    found = [pytest.mark.broker] if BROKERS[name].shared else []
    return [*found, pytest.mark.long] if name in LONG else found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "broker",
    [pytest.param(name, marks=make_marks(name)) for name in BROKERS],
)
def test_contract(case: str, broker: str, context: CaseContext) -> None:
    try:
        CASES[case].run(context)
    except Excluded as excluded:
        pytest.skip(f"{EXCLUDED}{excluded}")


def test_every_broker_is_held_to_the_contract() -> None:
    """The suite has each variant of each broker that a URL can name."""
    titles = {
        capabilities.title
        for broker in list_brokers()
        for capabilities in broker.all_capabilities()
    }
    assert {broker.capabilities.title for broker in BROKERS.values()} == titles


def test_every_capability_is_proved_by_a_case() -> None:
    """Each yes-or-no capability is needed by some case."""
    capabilities = next(iter(BROKERS.values())).capabilities
    claims = {fact.name for fact in capabilities.facts if isinstance(fact.value, bool)}
    assert {name for case in CASES.values() for name in case.needs} == claims


def test_each_capability_that_excludes_a_broker_includes_another() -> None:
    """A case that no broker has the capability for would never run."""
    for name in {name for case in CASES.values() for name in case.needs}:
        assert any(getattr(each.capabilities, name) for each in BROKERS.values()), name
