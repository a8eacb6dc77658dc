"""The seed of a run determines its faults."""

from __future__ import annotations

from collections import Counter

import pytest

from . import catalogue
from .fault import EVERYWHERE
from .setups import SETUPS

each_broker = pytest.mark.parametrize("broker", sorted(EVERYWHERE))


@each_broker
def test_a_seed_determines_the_drawn_faults(
    broker: str,
) -> None:
    assert catalogue.draw(broker, 1, 30) == catalogue.draw(broker, 1, 30)
    assert catalogue.draw(broker, 1, 30) != catalogue.draw(broker, 2, 30)
    assert catalogue.draw_short(broker, 1) == catalogue.draw_short(broker, 1)


@each_broker
def test_each_fault_is_drawn_at_least_once_if_the_count_allows(broker: str) -> None:
    known = catalogue.find_faults(broker)
    found = Counter(catalogue.draw(broker, 1, len(known) + 10))

    assert found.keys() == set(known)
    assert found.total() == len(known) + 10


@each_broker
def test_no_more_faults_are_drawn_than_asked_for(broker: str) -> None:
    assert len(set(catalogue.draw(broker, 1, 3))) == 3


@each_broker
def test_names_are_unique_on_a_broker(broker: str) -> None:
    names = Counter(each.name for each in catalogue.find_faults(broker))

    assert max(names.values()) == 1
    assert set(catalogue.draw_short(broker, 1)) <= set(catalogue.find_faults(broker))
    assert catalogue.pick(broker, [*names][:2]) == catalogue.find_faults(broker)[:2]


def test_each_fault_has_brokers_and_each_broker_has_faults() -> None:
    for each in catalogue.FAULTS:
        assert each.brokers and each.brokers <= SETUPS.keys()
    for broker in SETUPS:
        assert catalogue.find_faults(broker)


def test_an_unknown_name_is_refused_with_the_known_names() -> None:
    with pytest.raises(LookupError, match=r"no fault 'fire' on redis. .*half-open"):
        catalogue.pick("redis", ["fire"])
