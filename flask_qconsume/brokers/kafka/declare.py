"""Declares the topics of an app, once per process, before they are used."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from ...broker.topology import QueuePlan
from ...errors import BrokerUnavailable
from ...errors import TopologyMismatch
from ...first_use import PerProcess
from ...settings import Settings
from . import naming
from .group_starts import GroupStarts
from .topics import Topics

#: Seconds for a request when no time is left, so that its error can be reported.
_LAST_ATTEMPT_SECONDS = 0.1


class TopicDeclaration:
    """Creates the topics of an app's queues, or checks that they exist.

    :param queues: Returns the queues known so far; kombu's transport adds more.
    :param at_the_end: Whether a new group skips records that are older than the group.
    """

    def __init__(
        self,
        settings: Settings,
        queues: Callable[[], Sequence[QueuePlan]],
        topics: Topics,
        starts: GroupStarts,
        *,
        at_the_end: bool,
    ) -> None:
        self._settings = settings
        self._queues = queues
        self._topics = topics
        self._group_starts = starts
        self._at_the_end = at_the_end
        #: Set once this process has declared its topics.
        self._is_done = PerProcess(threading.Event)
        self._declaring = threading.Lock()

    def topics_of(self, plan: QueuePlan) -> list[str]:
        """Return the topics that must exist before a queue is used."""
        if self._settings.declare == "never":
            return []
        return self._topics.list_required(plan)

    def ensure(self, timeout: float) -> None:
        """Declare the topics, unless this process has declared them already.

        Only one caller declares. Concurrent callers wait for that caller, each up to
        its own timeout.
        """
        if self._is_done.get().is_set():
            return
        began = time.monotonic()
        if not self._declaring.acquire(timeout=timeout):
            raise BrokerUnavailable(
                f"Kafka did not answer within {timeout:g} s to another publisher in"
                " this process, which declares the topics before the first publish."
            )
        try:
            if not self._is_done.get().is_set():
                # If Kafka does not answer at all, that counts as an outage earlier.
                deadline = began + timeout
                outage_at = began + self._settings.away_after
                self._topics.look(_time_left(min(deadline, outage_at)))
                self.declare(_time_left(deadline))
        finally:
            self._declaring.release()

    def declare(self, timeout: float) -> None:
        """Create the missing topics, if 'QCONSUME_DECLARE' is 'auto'.

        :raises TopologyMismatch: if topics are missing and the setting is 'passive'.
        """
        queues = self._queues()
        for plan in queues:
            naming.check_plan(plan)
        if self._settings.declare != "never":
            deadline = time.monotonic() + timeout
            missing = self._missing(self._topics.look(timeout))
            self._create(missing, _time_left(deadline))
            if self._at_the_end and self._settings.declare == "auto":
                # The groups get all messages from now on, even before a worker runs.
                self._group_starts.begin(queues, _time_left(deadline))
        self._is_done.get().set()

    def on_topics_changed(self, topics: Mapping[str, int]) -> None:
        """If a needed topic was deleted, let the next use declare it again."""
        if any(self._missing(topics).values()):
            self._is_done.take()

    def _missing(self, topics: Mapping[str, int]) -> dict[str, list[str]]:
        return {
            plan.name: [name for name in self.topics_of(plan) if name not in topics]
            for plan in self._queues()
        }

    def _create(self, missing: Mapping[str, Sequence[str]], timeout: float) -> None:
        names = {name for topics in missing.values() for name in topics}
        if not names:
            return
        if self._settings.declare == "auto":
            self._topics.create(names, timeout)
            return
        queue, first = next((q, topics[0]) for q, topics in missing.items() if topics)
        raise TopologyMismatch(
            f"The topic '{first}' of the queue '{queue}' is not there ({len(names)}"
            " such topics are missing), and 'QCONSUME_DECLARE' is 'passive'. Run 'flask"
            " qconsume declare' where it is 'auto'."
        )


def _time_left(deadline: float) -> float:
    return max(deadline - time.monotonic(), _LAST_ATTEMPT_SECONDS)
