"""Tell listeners what one subscription settles, and what it can no longer settle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from collections.abc import Sequence

from ..broker import headers
from ..broker.link import Delivery
from ..broker.link import Forward
from ..broker.link import Lane
from ..handling.events import Ending
from ..handling.events import Events
from ..handling.events import tell
from ..handling.events import tell_end
from ..registration.consumer import Consumer

#: The reason why each message was not settled, or ``None``.
Errors = Sequence[BaseException | None]

_ACTIONS = {
    Lane.MAIN: "retry",
    Lane.SUSPECTS: "suspect",
    Lane.DEAD: "dead-letter",
}


class SettlementEvents:
    """Tells the events ``settling`` and ``lost`` of one consumer."""

    def __init__(self, events: Events, consumer: Consumer) -> None:
        self._events = events
        self._consumer = consumer

    def begin_acks(
        self, deliveries: Sequence[Delivery]
    ) -> Callable[[Errors], None] | None:
        """Tell that deliveries are about to be acknowledged.

        :returns: A function to call with the errors, or ``None`` without a listener.
        """
        if not self._events.settling:
            return None
        endings = self._begin("ack", deliveries)
        return lambda errors: tell_end(endings, errors)

    def begin_forwards(
        self, forwards: Sequence[Forward]
    ) -> Callable[[Errors], None] | None:
        """Tell that messages are about to be forwarded, for each lane on its own.

        :returns: A function to call with the errors, or ``None`` without a listener.
        """
        if not self._events.settling:
            return None
        places: dict[str, list[int]] = defaultdict(list)
        for place, forward in enumerate(forwards):
            places[_find_action(forward)].append(place)
        begun = [
            (found, self._begin(action, [forwards[place].delivery for place in found]))
            for action, found in places.items()
        ]

        def end(errors: Errors) -> None:
            for found, endings in begun:
                tell_end(endings, [errors[place] for place in found])

        return end

    def tell_lost(self, deliveries: Sequence[Delivery]) -> None:
        """Tell that the connection of handled messages was lost."""
        if self._events.lost:
            messages = [delivery.message for delivery in deliveries]
            tell(self._events.lost, self._consumer, messages)

    def _begin(self, action: str, deliveries: Sequence[Delivery]) -> list[Ending]:
        messages = [delivery.message for delivery in deliveries]
        return tell(self._events.settling, self._consumer, action, messages)


def _find_action(forward: Forward) -> str:
    # A dead letter that waits as a retry, since the queue of dead letters is full.
    is_parked = headers.PARKED in forward.headers
    return "dead-letter" if is_parked else _ACTIONS[forward.lane]
