"""All faults, and the selection and order of those that a run provokes."""

from __future__ import annotations

import random
from collections.abc import Sequence

from . import brokers
from . import network
from . import process
from .fault import Fault

FAULTS: tuple[Fault, ...] = (*network.FAULTS, *process.FAULTS, *brokers.FAULTS)

#: Faults that the short profile provokes on each broker; the seed selects them.
SHORT = 4
#: How often a fault may be drawn on average.
MAX_AVERAGE_DRAWS = 6


def find_faults(broker: str) -> list[Fault]:
    """Return the faults that can be provoked on a broker."""
    return [each for each in FAULTS if broker in each.brokers]


def draw_short(broker: str, seed: int) -> list[Fault]:
    """Draw faults of the short profile."""
    found = [each for each in find_faults(broker) if each.short]
    return _seed_random(broker, seed).sample(found, min(SHORT, len(found)))


def draw(broker: str, seed: int, count: int) -> list[Fault]:
    """Draw ``count`` faults in random order, each at least once if ``count`` allows.

    Fewer are drawn on a broker with few faults: at most six times their number.
    """
    known = find_faults(broker)
    count = min(count, MAX_AVERAGE_DRAWS * len(known))
    chance = _seed_random(broker, seed)
    first = chance.sample(known, min(count, len(known)))
    more = chance.choices(known, [each.weight for each in known], k=count - len(first))
    return chance.sample([*first, *more], count)


def pick(broker: str, names: Sequence[str]) -> list[Fault]:
    """Return the faults with these names, in this order.

    :raises LookupError: if the broker has no such fault.
    """
    known = {each.name: each for each in find_faults(broker)}
    for name in names:
        if name not in known:
            raise LookupError(
                f"There is no fault '{name}' on {broker}. Choose from:"
                f" {', '.join(known)}."
            )
    return [known[name] for name in names]


def _seed_random(broker: str, seed: int) -> random.Random:
    return random.Random(f"{seed} {broker}")
