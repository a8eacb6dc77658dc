"""From which offsets a member's client reads its partitions.

The member decides that, not the client: a partition without a committed offset is read
from its first record, and where the broker has no such offset any more the client
reports it ('auto.offset.reset' is 'error'), so that the loss is logged before reading
goes on. Runs in the native thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from confluent_kafka import OFFSET_BEGINNING
from confluent_kafka import Consumer
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition

from .partition import AssignedPartition

#: Settings of the client that leave the decision to the member.
SETTINGS = {"auto.offset.reset": "error"}

#: Seconds that one question takes at the most, and between two of them.
_ANSWER = 1.0
_PAUSE = 0.5

Place = tuple[str, int]


class Positions:
    """Where reading begins, and where it goes on after an offset that is gone.

    :param strategy: How the group shares its partitions, as the client is told.
    :param tell: Logs a text at a level.
    """

    def __init__(self, strategy: str, tell: Callable[[int, str], None]) -> None:
        self._incremental = "cooperative" in strategy
        self._tell = tell
        self._lost: set[Place] = set()
        self._next = 0.0

    def begin(self, consumer: Consumer, committed: Sequence[TopicPartition]) -> None:
        """Read partitions that were assigned, from where the group has come to."""
        for each in committed:
            if each.offset < 0:
                each.offset = OFFSET_BEGINNING
        add = consumer.incremental_assign if self._incremental else consumer.assign
        add(list(committed))

    def lose(self, place: Place) -> None:
        """The broker has no record at the offset that was to be read next."""
        self._lost.add(place)

    def look(
        self, consumer: Consumer, slots: Mapping[Place, AssignedPartition]
    ) -> list[Place]:
        """Go on reading where an offset is gone.

        :returns: The partitions that are to be read from their first record, since what
            was known of them is not true any more.
        """
        if not self._lost or time.monotonic() < self._next:
            return []
        self._next = time.monotonic() + _PAUSE
        self._lost.intersection_update(slots)
        return [each for each in list(self._lost) if self._go_on(consumer, slots, each)]

    def _go_on(
        self, consumer: Consumer, slots: Mapping[Place, AssignedPartition], place: Place
    ) -> bool:
        try:
            found = consumer.get_watermark_offsets(
                TopicPartition(*place), timeout=_ANSWER
            )
        except KafkaException:
            return False  # Tried again: it may have no leader just now.
        first, end = found
        position = slots[place].window.position
        self._read_from(consumer, slots, place, first)
        self._lost.discard(place)
        made_anew = position > end
        text = _made_anew if made_anew else _deleted
        self._tell(logging.WARNING, text(*place, position, first, end))
        return made_anew

    def _read_from(
        self,
        consumer: Consumer,
        slots: Mapping[Place, AssignedPartition],
        place: Place,
        offset: int,
    ) -> None:
        """Have the client read a partition from an offset on. It cannot seek there."""
        one = TopicPartition(*place, offset)
        if self._incremental:
            consumer.incremental_unassign([one])
            consumer.incremental_assign([one])
        else:
            rest = [_unread(slot) for key, slot in slots.items() if key != place]
            consumer.assign([one, *rest])
        for slot in slots.values():
            # The client may have forgotten which of them are paused.
            slot.paused = None


def _unread(slot: AssignedPartition) -> TopicPartition:
    position = slot.window.position
    offset = OFFSET_BEGINNING if position < 0 else position
    return TopicPartition(slot.topic, slot.partition, offset)


def _deleted(topic: str, partition: int, position: int, first: int, end: int) -> str:
    return (
        f"The records {position} to {first - 1} of partition {partition} of the topic"
        f" '{topic}' were deleted unread ({first - position} at the most): the topic's"
        f" retention was over, or somebody deleted them. Reading goes on at {first}."
        " Keep records for longer ('retention.ms', 'retention.bytes'), or handle them"
        " faster."
    )


def _made_anew(topic: str, partition: int, position: int, first: int, end: int) -> str:
    return (
        f"Partition {partition} of the topic '{topic}' ends at {end}, though it was"
        f" read up to {position}: the topic was made anew, or has lost its last"
        f" records. It is read from its first record, {first}, on."
    )
