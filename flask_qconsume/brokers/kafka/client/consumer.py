"""The hub's side of a Kafka consumer: takes records and settles them, in any order.

A :class:`~.consumer_thread.ConsumerThread` makes all calls of the client that block.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from itertools import chain
from typing import Any

from ....errors import BrokerError
from ....errors import BrokerUnavailable
from ....logs import get_logger
from ....native_threads import NativeThread
from ....native_threads import ThreadNotifier
from ....text import escape
from .consumer_thread import ANSWER
from .consumer_thread import ConsumerTerms
from .consumer_thread import ConsumerThread
from .offsets import RecordNote
from .ordering import create_queue
from .partition import ReadyRecord

logger = get_logger("flask_qconsume.transports.kafka")

#: Seconds between two looks at what is committed.
_POLL = 0.005
#: Seconds without a sign of the native thread after which the client is given up.
_SILENCE = 60.0


class KafkaConsumer:
    """A member of a consumer group, for the thread that made it.

    Before it has started it takes nothing, and costs next to nothing.

    :param config: librdkafka's settings, the group's id among them.
    :param topics: Topics, and patterns that begin with ``^``.
    """

    def __init__(
        self, config: Mapping[str, Any], topics: Sequence[str], terms: ConsumerTerms
    ) -> None:
        self._order = create_queue(terms.ordering)
        #: Seconds for which others of the group may hold up a member that leaves.
        self._patience = terms.grace
        #: Once it is closed: what may be committed to be handed out, and was not.
        self.unused: list[ReadyRecord] = []
        self._notifier = ThreadNotifier()
        self._member = ConsumerThread(config, list(topics), terms, self._notifier)
        self._thread = NativeThread(self._member.run, "kafka")
        #: Whether it is in its group, or on the way there, or was.
        self.started = False

    @property
    def stale(self) -> int:
        """How many settlements came after their partition had been taken away."""
        return self._member.stale

    @property
    def ahead(self) -> int:
        """How many records were fetched and may not be handed out yet."""
        return self._member.buffered

    @property
    def away(self) -> bool:
        """Whether Kafka does not answer at the moment."""
        return self._member.absence.lasts

    @property
    def misses(self) -> bool:
        """Whether, since the last look, a topic that it reads was not there."""
        found, self._member.misses = self._member.misses, False
        return found

    def start(self, timeout: float = 2 * ANSWER) -> None:
        """Connect, and begin to join the group, unless it is closed by now.

        :raises BrokerError: if the broker does not answer, or refuses.
        """
        if self._member.stopping:
            return
        self.started = True
        self._member.beaten = time.monotonic()
        self._thread.start()
        deadline = time.monotonic() + timeout
        try:
            while not (self._member.opened or self._member.stopping):
                self._raise()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise BrokerUnavailable("Kafka's client does not begin.")
                self._notifier.wait(left)
        except BrokerError:
            self.close(0)
            raise

    def take(self, room: int) -> list[ReadyRecord]:
        """Up to ``room`` arrivals to be handled; none if there are none yet.

        :raises BrokerError: if it is of no use any more.
        """
        self._raise()
        member = self._member
        if member.told:
            self._say()
        while member.gone:
            self._order.drop(member.gone.popleft())
        while member.arrived:
            self._order.add(member.arrived.popleft())
        return self._order.take(room, time.monotonic())

    def wait(self, timeout: float) -> None:
        """Wait, cooperatively, until there may be something to take."""
        due = self._order.next_due()
        if due is not None:
            timeout = min(timeout, due - time.monotonic())
        if timeout > 0:
            self._notifier.wait(timeout)

    def exceed_prefetch(self, more: int) -> None:
        """Have it hand out so many more than it was made for, at once."""
        self._member.exceeded = more

    def await_joined(self, timeout: float) -> None:
        """Wait until the group has told which partitions are ours."""
        deadline = time.monotonic() + timeout
        while not self._member.joined and (left := deadline - time.monotonic()) > 0:
            self._raise()
            self._notifier.wait(left)

    def wake(self) -> None:
        """End a wait."""
        self._notifier.notify()

    def find(self, topics: Mapping[str, int]) -> None:
        """Have it look for topics that have come, and have so many partitions."""
        self._member.search.ask(topics)

    def settle(self, arrivals: Sequence[ReadyRecord]) -> None:
        """These are done with; that is committed soon."""
        self._member.settled.append(arrivals)
        if self._order.settled(arrivals):
            self._notifier.notify()

    def await_committed(self, arrivals: Sequence[ReadyRecord], timeout: float) -> bool:
        """Wait until it is committed that these are done with; whether it is."""
        deadline = time.monotonic() + timeout
        while not all(each.slot.has_committed(each.offset) for each in arrivals):
            if time.monotonic() > deadline or not self._thread.alive:
                return False
            time.sleep(_POLL)
        return True

    def postpone(self, arrival: ReadyRecord, attempt: int, delay: float) -> None:
        """Hand it out again after so many seconds, and nothing behind it before.

        That it comes to its attempt number ``attempt`` then is committed, too.
        """
        again = arrival._replace(redelivered=False, attempt=attempt, deaths=0)
        self._member.noted.append((arrival, RecordNote(attempt)))
        if self._member.quiet:
            self._member.released.append([arrival])
        self._order.postpone(again, time.monotonic() + delay)
        self._notifier.notify()

    def put_back(self, arrivals: Iterable[ReadyRecord]) -> None:
        """These were not begun here, and will not be: somebody else gets them."""
        given = list(arrivals)
        for arrival in given:
            arrival.slot.handed -= 1
        self._member.released.append(given)

    def pause(self) -> None:
        """Hand out no more, and give back what is not handed out."""
        self._member.quiet = True
        while self._member.arrived:
            self._order.add(self._member.arrived.popleft())
        self._member.released.append(self._order.clear())
        self._notifier.notify()

    def check(self) -> None:
        """Look whether the client lives.

        :raises BrokerError: if it does not.
        """
        self._raise()
        if not self.started:
            return
        if time.monotonic() - self._member.beaten > _SILENCE:
            raise BrokerUnavailable(f"Kafka's client has hung for {_SILENCE:g} s.")

    def close(self, timeout: float) -> bool:
        """Commit, give back what is not settled, and leave the group.

        After an error nothing is committed: it stays marked, as at a death.

        :returns: Whether that was done in time; else it goes on without us.
        """
        member = self._member
        self.unused = [*self._order.clear(), *chain(*member.arrived), *member.waiting]
        member.stopping = True
        self._notifier.notify()
        done = not self._thread.alive or self._thread.join(timeout)
        if not done and member.leaving:
            done = self._thread.join(self._patience)
        self._say()
        self._notifier.close()
        return done

    def _raise(self) -> None:
        if self._member.error is not None:
            raise self._member.error
        ended = self.started and not self._thread.alive
        if ended and not self._member.stopping:
            raise BrokerError(f"Kafka's client has ended: {self._thread.error!r}")

    def _say(self) -> None:
        """Log what the native thread has to tell: it shares no locks with us."""
        while self._member.told:
            level, text = self._member.told.popleft()
            logger.log(level, "%s", escape(text))
