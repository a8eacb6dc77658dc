"""Which links are to hear of topics that came after they had joined. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

from . import layout
from .link import KafkaLink


class Newcomers:
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
            _tell(link, {n: size for n, size in topics.items() if known.get(n) != size})


def _tell(link: KafkaLink, topics: Mapping[str, int]) -> None:
    reads = layout.reader(link.plan, link.lane)
    found = {name: number for name, number in topics.items() if reads(name)}
    if found:
        link.find(found)
