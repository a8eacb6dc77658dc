"""All faults, and which of them a run provokes, in which order."""

from __future__ import annotations

import random
from collections.abc import Sequence

from . import brokers
from . import network
from . import process
from .fault import Fault

FAULTS: tuple[Fault, ...] = (*network.FAULTS, *process.FAULTS, *brokers.FAULTS)

#: How many the short profile provokes at each place: others with each seed.
SHORT = 4
#: How often a fault may be drawn, on the average.
OFTEN = 6


def faults_of(place: str) -> list[Fault]:
    """What can be provoked at a place."""
    return [each for each in FAULTS if place in each.brokers]


def short(place: str, seed: int) -> list[Fault]:
    """Some of those that are quick, shuffled."""
    found = [each for each in faults_of(place) if each.short]
    return _chance(place, seed).sample(found, min(SHORT, len(found)))


def drawn(place: str, seed: int, count: int) -> list[Fault]:
    """So many of them: each at least once, if they are enough; shuffled.

    Where there are few kinds, they are fewer: each is drawn so often at the most, on
    the average.
    """
    known = faults_of(place)
    count = min(count, OFTEN * len(known))
    chance = _chance(place, seed)
    first = chance.sample(known, min(count, len(known)))
    more = chance.choices(known, [each.weight for each in known], k=count - len(first))
    return chance.sample([*first, *more], count)


def named(place: str, names: Sequence[str]) -> list[Fault]:
    """Those of these names, in this order.

    :raises LookupError: if there is no such fault there.
    """
    known = {each.name: each for each in faults_of(place)}
    for name in names:
        if name not in known:
            raise LookupError(
                f"There is no fault '{name}' at {place}; there are: {', '.join(known)}."
            )
    return [known[name] for name in names]


def _chance(place: str, seed: int) -> random.Random:
    return random.Random(f"{seed} {place}")
