"""The topics of an app: which there must be, which there are, and how they are made."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping

from ...broker.topology import QueuePlan
from ...errors import BrokerError
from ...errors import BrokerUnavailable
from ...errors import TopologyMismatch
from ...settings import Settings
from . import naming
from . import tls_checks
from .client.admin import KafkaAdmin
from .client.admin import NewTopic
from .client.config import KafkaConfig

#: Seconds for which it is believed that a topic is still there.
_FRESH = 60.0
#: Seconds after which it is looked again for those who read whatever comes: at least,
#: and as a multiple of what a look took, since who looks keeps all else from running.
_RECENT = 8.0
_SELDOM = 20
#: Seconds that the broker has to answer, where nobody says.
TIMEOUT = 10.0
#: Seconds of those for the first answer, after which a reason is looked for.
_FIRST = 2.0
#: Bytes that a record of ours may have: what a topic took, with the headers of a copy.
_LARGEST = 8 * 1024 * 1024
#: What a topic takes where nobody says.
_USUAL = 1_048_588
#: Seconds between two looks at whether a new topic has leaders.
_PAUSE = 0.05


class Topics:
    """What is known of the topics of one Kafka, and how to get more of them.

    :param heard: Called with all topics, and how many partitions each has, whenever
        that is news.
    """

    def __init__(
        self,
        admin: KafkaAdmin,
        config: KafkaConfig,
        settings: Settings,
        heard: Callable[[Mapping[str, int]], None] = lambda topics: None,
    ) -> None:
        self._admin = admin
        self._config = config
        self._settings = settings
        self._heard = heard
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._known: Mapping[str, int] = {}
        self._looked = float("-inf")
        self._took = 0.0

    @property
    def known(self) -> Mapping[str, int]:
        """The topics as they were seen last, and how many partitions each had."""
        return self._known

    def partitions(self, topic: str, timeout: float = TIMEOUT) -> int:
        """How many partitions a topic has; 0 if there is no such topic."""
        known = self._known.get(topic, 0)
        if not known or time.monotonic() - self._looked > _FRESH:
            known = self._found(timeout).get(topic, 0)
        return known

    def _found(self, timeout: float) -> Mapping[str, int]:
        """What is there now: one asks at a time, for that takes a thread of its own."""
        began = time.monotonic()
        if not self._looking.acquire(timeout=timeout):
            raise BrokerUnavailable(f"Kafka did not answer within {timeout:g} s.")
        try:
            if self._looked > began:  # Somebody else has asked meanwhile.
                return self._known
            return self.look(max(timeout - (time.monotonic() - began), 0.1))
        finally:
            self._looking.release()

    def look(self, timeout: float = TIMEOUT) -> Mapping[str, int]:
        """All topics, asked for anew, and how many partitions each has."""
        began = time.monotonic()
        found = self._asked(timeout)
        with self._lock:
            news = found != self._known
            self._known, self._looked = found, time.monotonic()
            self._took = self._looked - began
        if news:
            self._heard(found)
        return found

    def _asked(self, timeout: float) -> Mapping[str, int]:
        """The answer; at first contact TLS is looked at as soon as there is none."""
        if self._looked > float("-inf"):
            return self._admin.topics(timeout)
        began = time.monotonic()
        try:
            return self._admin.topics(min(timeout, _FIRST))
        except BrokerError as error:
            tls_checks.check(self._config, error)
            left = timeout - (time.monotonic() - began)
            if left <= 0 or not isinstance(error, BrokerUnavailable):
                raise
            return self._admin.topics(left)

    def refresh(self, at_once: bool = False) -> None:
        """Look in the background, if nobody has for a while. Never waits.

        :param at_once: Whether to look even if somebody just has.
        """
        age = time.monotonic() - self._looked
        due = at_once or age >= recent(self._took)
        if due and not self._looking.locked():
            # A greenlet, where there are some.
            threading.Thread(target=self._refresh, daemon=True).start()

    def _refresh(self) -> None:
        with contextlib.suppress(BrokerError):  # Who needs it now is told.
            self._found(TIMEOUT)

    def forget(self) -> None:
        """Ask again before anything is believed to be there."""
        self._looked = float("-inf")

    def ensure(self, names: Iterable[str], timeout: float = TIMEOUT) -> None:
        """Create topics of ours that are missing, if that is wanted.

        :raises TopologyMismatch: if one is missing, and declaring is left to others.
        """
        missing = [name for name in set(names) if not self.partitions(name, timeout)]
        if not missing:
            return
        if self._settings.declare != "auto":
            raise TopologyMismatch(
                f"There is no topic '{min(missing)}' ({len(missing)} are missing),"
                f" and 'QCONSUME_DECLARE' is '{self._settings.declare}'. Run 'flask"
                " qconsume declare' where it is 'auto'."
            )
        self.create(missing, timeout)

    def create(self, names: Iterable[str], timeout: float = TIMEOUT) -> None:
        """Create topics, and wait until they have leaders."""
        wanted = sorted(set(names))
        deadline = time.monotonic() + timeout
        self._admin.create([self._new(name) for name in wanted], timeout)
        while not all(name in self._known for name in wanted):
            left = deadline - time.monotonic()
            if left <= 0:
                raise BrokerError(
                    f"Kafka does not show the topics it created: {wanted}"
                )
            found = self.look(left)
            if not all(found.get(name) for name in wanted):
                time.sleep(_PAUSE)

    def wanted(self, plan: QueuePlan) -> list[str]:
        """The topics that must be there for a queue; of somebody else's, only ours."""
        steps = {0, *map(naming.step_for, plan.delays)} if _forwards(plan) else {0}
        return [
            *([] if plan.given is not None else naming.literal_topics(plan)),
            *(naming.retry(plan.name, step) for step in sorted(steps)),
            naming.suspects(plan.name),
            naming.dead(plan.name),
        ]

    def retry(self, queue: str, delay: float) -> str:
        """The topic in which a queue's retries are held back for so long.

        A longer step serves as well as the one that fits, as long as what waits behind
        others in there is late by no more than some delays of its own.
        """
        best = naming.step_for(delay)
        longer = [step for step in naming.STEPS if step >= best]
        if self._settings.declare == "auto":
            longer = [step for step in longer if step <= 4 * best]
        for step in longer:
            if naming.retry(queue, step) in self._known:
                return naming.retry(queue, step)
        if self._settings.declare != "auto":
            return self._longest(queue, best)
        return naming.retry(queue, best)

    def _longest(self, queue: str, best: int) -> str:
        """A shorter step, where we may create none: what waits there is due later."""
        for step in reversed(naming.STEPS):
            if naming.retry(queue, step) in self._known:
                return naming.retry(queue, step)
        return naming.retry(queue, best)

    def _new(self, name: str) -> NewTopic:
        config = self._config
        settings, partitions = config.topic, config.partitions
        if name.startswith(naming.PREFIX):
            # What fails is the exception: it takes no more partitions than it must.
            settings, partitions = settings | self._settings_of_ours(name), 1
        # The option names topics as routing keys do, or in full.
        bare = name.removeprefix(self._settings.queue_prefix)
        return NewTopic(
            name,
            config.topics.get(bare, config.topics.get(name, partitions)),
            config.replication_factor,
            settings,
        )

    def _settings_of_ours(self, name: str) -> dict[str, str]:
        """Nothing of ours may go before its time is over."""
        kept = round(self._settings.dead_letter_ttl * 1_000)
        usual = int(self._config.topic.get("max.message.bytes", _USUAL))
        # A copy is larger than what came, and has to fit nevertheless.
        room = {"max.message.bytes": str(max(2 * usual, _LARGEST))}
        if name.endswith(".dead"):
            kind = {"cleanup.policy": "compact,delete", "retention.ms": str(kept)}
            return room | kind
        # From the longest wait on: retries must outlive weeks without workers.
        longest = round(4 * naming.LONGEST * 1_000)
        return room | {"cleanup.policy": "delete", "retention.ms": str(longest)}


def recent(took: float) -> float:
    """Seconds for which a look is a recent one, by how long it took.

    >>> recent(0.01), recent(1.0), recent(5.0)
    (8.0, 20.0, 60.0)
    """
    return min(max(_RECENT, _SELDOM * took), _FRESH)


def _forwards(plan: QueuePlan) -> bool:
    """Whether retries leave their partition."""
    return plan.ordering == "none"
