"""Remember unsettled messages across a reconnect. No I/O.

The broker delivers them again after the connection was lost, marked as delivered
before. That mark would make them suspects, and they would be handled twice. Since this
process lives, neither is needed.
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
    """The messages that lost their connection while this process lived on.

    A message that is forgotten is only handled once more, so the memory is bounded: it
    keeps the settlements of no more messages than two connections can have held.

    :param prefetch: How many messages one connection holds at most.
    """

    def __init__(self, prefetch: int) -> None:
        self._max_settlements = 2 * prefetch
        self._unsettled: set[str] = set()
        self._settlements: dict[str, Settlement] = {}

    def __bool__(self) -> bool:
        """True if anything is remembered."""
        return bool(self._unsettled or self._settlements)

    def add_unsettled(self, identities: Iterable[str | None]) -> None:
        """Remember messages that were unsettled when their connection was lost."""
        if len(self._unsettled) > _MAX_IDENTITIES:
            self._unsettled.clear()
        self._unsettled |= {each for each in identities if each is not None}

    def take_unsettled(self, delivery: Delivery) -> bool:
        """True if a redelivered message is known not to have killed this process.

        The message is forgotten by that: the next redelivery counts.
        """
        identity = delivery.identity
        if identity is None or identity not in self._unsettled:
            return False
        self._unsettled.discard(identity)
        return True

    def add_settlement(self, settlement: Settlement) -> None:
        """Remember how a handled message is to be settled once it comes again."""
        identity = get_delivery(settlement).identity
        if identity is None:
            return
        if len(self._settlements) >= self._max_settlements:
            self._settlements.clear()
        self._settlements[identity] = settlement

    def take_settlement(self, delivery: Delivery) -> Settlement | None:
        """The settlement of a redelivered message that was handled before, if known."""
        message, identity = delivery.message, delivery.identity or ""
        settlement = self._settlements.get(identity)
        if settlement is None or not message.redelivered:
            return None
        handled = get_delivery(settlement).message
        if (handled.raw, handled.attempt) != (message.raw, message.attempt):
            return None
        del self._settlements[identity]
        if isinstance(settlement, Forward):
            return dataclasses.replace(settlement, delivery=delivery)
        return delivery
