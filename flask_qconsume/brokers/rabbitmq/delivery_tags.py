"""The delivery tags of a channel: which are settled already. No I/O."""

from __future__ import annotations

from collections.abc import Iterable


class DeliveryTags:
    """The delivery tags of one channel, and which of them are settled."""

    def __init__(self) -> None:
        #: The lowest tag that is not settled.
        self._lowest_unsettled = 1
        #: Tags above it that are settled.
        self._settled: set[int] = set()

    def settle(self, tags: Iterable[int]) -> list[tuple[int, bool]]:
        """Mark tags as settled; return the acknowledgements to send to the broker.

        A tag that was settled before is left out: RabbitMQ would close the channel.

        :returns: Pairs of a tag and AMQP's ``multiple``: if true, the tag also settles
            all unsettled tags before it.
        """
        low, settled = self._lowest_unsettled, self._settled
        new = {tag for tag in tags if tag >= low and tag not in settled}
        if not new:
            return []
        settled |= new
        while self._lowest_unsettled in settled:
            settled.remove(self._lowest_unsettled)
            self._lowest_unsettled += 1
        single_tags = [
            (tag, False) for tag in sorted(new) if tag >= self._lowest_unsettled
        ]
        if self._lowest_unsettled == low:
            return single_tags
        # A tag sent with 'multiple' must itself be unsettled on the broker, which would
        # close the channel otherwise.
        return [
            (max(tag for tag in new if tag < self._lowest_unsettled), True),
            *single_tags,
        ]
