"""Which faults a run provokes follows from its seed."""

from __future__ import annotations

from collections import Counter

import pytest

from . import catalogue
from .fault import EVERYWHERE
from .places import PLACES

each_place = pytest.mark.parametrize("place", sorted(EVERYWHERE))


@each_place
def test_the_same_seed_draws_the_same_faults_and_another_one_others(place: str) -> None:
    assert catalogue.drawn(place, 1, 30) == catalogue.drawn(place, 1, 30)
    assert catalogue.drawn(place, 1, 30) != catalogue.drawn(place, 2, 30)
    assert catalogue.short(place, 1) == catalogue.short(place, 1)


@each_place
def test_each_fault_is_drawn_at_least_once_if_they_are_enough(place: str) -> None:
    known = catalogue.faults_of(place)
    found = Counter(catalogue.drawn(place, 1, len(known) + 10))

    assert found.keys() == set(known)
    assert found.total() == len(known) + 10


@each_place
def test_fewer_are_drawn_where_fewer_are_asked_for(place: str) -> None:
    assert len(set(catalogue.drawn(place, 1, 3))) == 3


@each_place
def test_names_are_unique_at_a_place(place: str) -> None:
    names = Counter(each.name for each in catalogue.faults_of(place))

    assert max(names.values()) == 1
    assert set(catalogue.short(place, 1)) <= set(catalogue.faults_of(place))
    assert catalogue.named(place, [*names][:2]) == catalogue.faults_of(place)[:2]


def test_each_fault_has_places_and_each_place_has_faults() -> None:
    for each in catalogue.FAULTS:
        assert each.brokers and each.brokers <= PLACES.keys()
    for place in PLACES:
        assert catalogue.faults_of(place)


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(LookupError, match=r"no fault 'fire' at redis; .*half-open"):
        catalogue.named("redis", ["fire"])
