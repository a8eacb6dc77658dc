"""How many records a group has not handled yet."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping

from .client.admin import Committed
from .client.admin import KafkaAdmin
from .client.admin import Place
from .client.offsets import read


def lag(
    admin: KafkaAdmin,
    group: str,
    topics: Mapping[str, int],
    timeout: float,
    only_known: bool = False,
) -> int:
    """The records from where a group stands to the ends, less those that are done.

    :param topics: What the group reads, and how many partitions each has.
    :param only_known: Whether only those count of which it has committed something.
    """
    everywhere = set(_places(topics))
    known = admin.committed(group, everywhere, timeout)
    places = set(known) if only_known else everywhere
    ends = admin.ends(places, timeout)
    first = admin.beginnings(places - set(known), timeout)
    return sum(
        _left(known.get(place) or Committed(first.get(place, end), ""), end)
        for place, end in ends.items()
    )


def undone(
    admin: KafkaAdmin, group: str, topics: Mapping[str, int], timeout: float
) -> dict[Place, int]:
    """The offset of the first record of each partition that a group has not handled,
    where there is any."""
    everywhere = set(_places(topics))
    known = admin.committed(group, everywhere, timeout)
    ends = admin.ends(everywhere, timeout)
    first = admin.beginnings(everywhere - set(known), timeout)
    begin = {**first, **{place: found.offset for place, found in known.items()}}
    return {
        place: offset for place, offset in begin.items() if offset < ends.get(place, 0)
    }


def _left(committed: Committed, end: int) -> int:
    """What is in one partition beyond an offset, and not done."""
    done = read(committed.metadata, committed.offset).done
    handled = sum(stop - start for start, stop in done)
    return max(0, end - committed.offset - handled)


def _places(topics: Mapping[str, int]) -> Iterable[Place]:
    return ((name, n) for name, number in topics.items() for n in range(number))
