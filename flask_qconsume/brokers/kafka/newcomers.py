"""Which links hear of topics that came or went after they had joined. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

from . import naming
from .link import KafkaLink


class TopicListeners:
    """Tells links of what they are to read, too: nobody else looks for it in time."""

    def __init__(self) -> None:
        #: With the topics that each of them has been told of.
        self._known: dict[KafkaLink, Mapping[str, int]] = {}

    def add(self, link: KafkaLink, known: Mapping[str, int]) -> None:
        """Tell a link from now on, and of what there is already.

        Its client may have asked a broker that did not know of a new topic yet.

        :param known: The topics that there are, and how many partitions each has.
        """
        self._known[link] = known
        _tell(link, known)

    def tell(self, topics: Mapping[str, int]) -> None:
        """There are these topics now."""
        for link, known in list(self._known.items()):
            if link.closed:
                self._known.pop(link, None)
                continue
            self._known[link] = topics
            link.miss(_gone(link, known, topics))
            _tell(link, {n: size for n, size in topics.items() if known.get(n) != size})


def _gone(
    link: KafkaLink, before: Mapping[str, int], now: Mapping[str, int]
) -> set[str]:
    """The topics that a link names and that were there, and are not now."""
    named = naming.subscription(link.plan, link.lane)
    gone = {name for name in named if name in before} | link.missing
    return {name for name in gone if name not in now}


def _tell(link: KafkaLink, topics: Mapping[str, int]) -> None:
    reads = naming.reader(link.plan, link.lane)
    found = {name: number for name, number in topics.items() if reads(name)}
    if found:
        link.find(found)
