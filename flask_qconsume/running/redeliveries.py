"""Remembers unsettled messages when their connection is lost. No I/O.

After a connection was lost, the broker delivers its unsettled messages again, with a
mark. A message with this mark may have killed a process, and is normally treated as
such. The messages remembered here did not kill a process, since this process still
runs; they are handled as usual, and none is handled twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ..broker.link import Delivery
from ..broker.link import Forward
from .settler import Settlement
from .settler import get_delivery

#: How many identities of messages are remembered at most.
_MAX_IDENTITIES = 10_000


class RedeliveryMemory:
    """Remembers the messages that were unsettled when a connection was lost.

    The memory is bounded. A forgotten message is not lost, but may be handled a second
    time.

    :param prefetch: The largest number of unsettled messages on one connection. At
        most twice as many handled messages are remembered.
    """

    def __init__(self, prefetch: int) -> None:
        self._max_settlements = 2 * prefetch
        self._unsettled: set[str] = set()
        self._settlements: dict[str, Settlement] = {}

    def __bool__(self) -> bool:
        return bool(self._unsettled or self._settlements)

    def add_unsettled(self, identities: Iterable[str | None]) -> None:
        """Remember messages that were unsettled when their connection was lost."""
        if len(self._unsettled) > _MAX_IDENTITIES:
            self._unsettled.clear()
        self._unsettled |= {each for each in identities if each is not None}

    def take_unsettled(self, delivery: Delivery) -> bool:
        """Forget a message; return whether it was remembered as unsettled.

        A remembered message did not kill its process. Once it is forgotten, the next
        redelivery is suspicious again.
        """
        identity = delivery.identity
        if identity is None or identity not in self._unsettled:
            return False
        self._unsettled.discard(identity)
        return True

    def add_settlement(self, settlement: Settlement) -> None:
        """Remember how a message is to be settled when it comes again."""
        identity = get_delivery(settlement).identity
        if identity is None:
            return
        if len(self._settlements) >= self._max_settlements:
            self._settlements.clear()
        self._settlements[identity] = settlement

    def take_settlement(self, delivery: Delivery) -> Settlement | None:
        """Forget and return how a redelivered message is to be settled.

        :returns: ``None`` if no handling of this message is remembered.
        """
        message, identity = delivery.message, delivery.identity or ""
        settlement = self._settlements.get(identity)
        if settlement is None or not delivery.may_be_known:
            return None
        handled = get_delivery(settlement).message
        if (handled.raw, handled.attempt) != (message.raw, message.attempt):
            return None
        del self._settlements[identity]
        if isinstance(settlement, Forward):
            return dataclasses.replace(settlement, delivery=delivery)
        return delivery
