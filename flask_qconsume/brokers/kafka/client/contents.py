"""Which partitions hold any record, asked again and again by one client for all.

A consumer asks, which joins no group: the client for administration can end the process
when it is asked during an outage.
https://github.com/confluentinc/librdkafka/issues/3663
"""

from __future__ import annotations

import typing as t
from collections.abc import Collection
from collections.abc import Mapping

from confluent_kafka import OFFSET_BEGINNING
from confluent_kafka import OFFSET_END
from confluent_kafka import Consumer
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition

from ....first_use import PerProcess
from .admin import Place
from .calls import call_in_thread
from .calls import create_client
from .calls import destroy_within
from .calls import keep_undestroyed

_GRACE = 2.0
#: Seconds that one partition may take to be asked for on its own.
_ALONE = 0.5


class Contents:
    """Opens nothing before it is used; a forked child has a client of its own.

    :param config: librdkafka's settings, for a consumer.
    """

    def __init__(self, config: Mapping[str, t.Any]) -> None:
        self._client = PerProcess(
            lambda: create_client(Consumer, config), leave=keep_undestroyed
        )

    def of(self, places: Collection[Place], timeout: float) -> set[Place]:
        """Those of some partitions that hold any record. For one at a time.

        :param timeout: Seconds for one question; there may be two for all partitions,
            and one more for each of them where some of them cannot answer.
        :raises BrokerError: if the broker does not answer.
        """
        if not places:
            return set()
        client = self._client.get()
        limit = 2 * timeout + len(places) * _ALONE
        return call_in_thread(lambda: _filled(client, places, timeout), limit)

    def close(self) -> None:
        """Close what is open. Using it again opens it anew."""
        clients = [self._client.take()]
        if clients != [None]:
            destroy_within(_GRACE, clients.clear)


def _filled(client: Consumer, places: Collection[Place], timeout: float) -> set[Place]:
    """In a native thread."""
    client.poll(0)  # What it has to say would pile up.
    try:
        first = _offsets(client, places, OFFSET_BEGINNING, timeout)
        behind = _offsets(client, places, OFFSET_END, timeout)
        return {place for place in places if first.get(place, 0) < behind.get(place, 0)}
    except KafkaException as error:
        failed = error.with_traceback(None)
    # One partition without a leader fails the question for all of them. (Not within the
    # clause: the client keeps for ever what is being handled when it fails again.)
    found = {place: _is_filled(client, place) for place in places}
    if all(answer is None for answer in found.values()):
        raise failed
    return {place for place, answer in found.items() if answer}


def _offsets(
    client: Consumer, places: Collection[Place], which: int, timeout: float
) -> dict[Place, int]:
    """Where partitions begin or end, those that are not there left out."""
    wanted = [TopicPartition(*place, which) for place in places]
    found = client.offsets_for_times(wanted, timeout=timeout)
    return {(e.topic, e.partition): e.offset for e in found if e.error is None}


def _is_filled(client: Consumer, place: Place) -> bool | None:
    """``None`` if it does not answer."""
    try:
        found = client.get_watermark_offsets(TopicPartition(*place), timeout=_ALONE)
    except KafkaException:
        return None
    return None if found is None else found[0] < found[1]
