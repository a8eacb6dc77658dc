"""Each case of the contract on each broker, and that none is missing."""

from __future__ import annotations

import typing as t

import pytest

from flask_qconsume.broker.urls import list_brokers

from ..servers.fixtures import require
from .contract import CASES
from .contract import Excluded
from .places import PLACES
from .report import EXCLUDED
from .stage import Stage


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> t.Iterator[Stage]:
    """The stage of the case and the broker that the test is parametrized with."""
    params = request.node.callspec.params
    place = PLACES[params["broker"]]
    case = CASES[params["case"]]
    fixture = place.own if case.breaks else place.shared
    if fixture:
        require(fixture)
    made = Stage(place(request.getfixturevalue, case.breaks))
    try:
        yield made
    finally:
        made.close()


#: Where each case goes the same ways as in another place, but for the network.
LONG = {"cluster"}


def marks(name: str) -> list[pytest.MarkDecorator]:
    """Which of the runs a place is left out of."""
    found = [pytest.mark.broker] if PLACES[name].shared else []
    return [*found, pytest.mark.long] if name in LONG else found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "broker",
    [pytest.param(name, marks=marks(name)) for name in PLACES],
)
def test_contract(case: str, broker: str, stage: Stage) -> None:
    try:
        CASES[case].run(stage)
    except Excluded as excluded:
        pytest.skip(f"{EXCLUDED}{excluded}")


def test_every_broker_is_held_to_the_contract() -> None:
    """Every record of every broker that a URL can mean."""
    records = {
        record.title
        for broker in list_brokers()
        for record in broker.all_capabilities()
    }
    assert {place.record.title for place in PLACES.values()} == records


def test_every_claim_of_a_record_is_held_to() -> None:
    """Whatever a record says yes or no to, some case needs."""
    record = next(iter(PLACES.values())).record
    claims = {fact.name for fact in record.facts if isinstance(fact.value, bool)}
    assert {name for case in CASES.values() for name in case.needs} == claims


def test_no_case_is_without_an_effect_of_its_record() -> None:
    """What excludes a broker somewhere includes another one somewhere."""
    for name in {name for case in CASES.values() for name in case.needs}:
        assert any(getattr(place.record, name) for place in PLACES.values()), name
