"""Capabilities of brokers, as data for ``plan``, the docs and the tests.

Each field comes with the words that name it in tables and sentences. The tests check
every broker against its record: ``True`` must work, ``False`` must be refused, or fail
as described.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields


def _fact(label: str, short: str = "") -> t.Any:
    """Return a field with a label for tables and a short name for sentences."""
    return field(metadata={"label": label, "short": short or label})


class Fact(t.NamedTuple):
    """One capability of a broker: its names and its value."""

    name: str
    #: The first cell of a table's row: ``"The longest delay"``.
    label: str
    #: A shorter name, for use in a sentence.
    short: str
    value: t.Any

    @property
    def in_words(self) -> bool:
        """True if a text describes the capability, not a boolean or a number."""
        return isinstance(self.value, str)


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Capabilities of one broker, or of one kind of its queues.

    ``True`` is always the better value.
    """

    #: The broker's name: ``"RabbitMQ"``.
    broker: str
    #: The kind of queues, if the broker has several: ``"quorum queues"``.
    kind: str = ""
    #: The guarantee for messages, and its limits.
    guarantee: str

    # Storing.
    shared: bool = _fact(
        "Other processes see the messages", "messages that other processes see"
    )
    survives_worker_death: bool = _fact(
        "A message outlives the death of its worker",
        "messages that outlive their worker",
    )
    durable: bool = _fact(
        "A message outlives a restart of the broker", "messages that outlive the broker"
    )
    foreign: bool = _fact(
        "Other programs can add messages", "messages of other programs"
    )
    exchanges: bool = _fact("Exchanges beside the app's own", "other exchanges")
    queue_arguments: bool = _fact(
        "Types and arguments of a given ``kombu.Queue``",
        "types and arguments of given queues",
    )
    bindings: bool = _fact(
        "Bindings that the code no longer has are found", "stale bindings"
    )

    # Publishing.
    confirms: str = _fact("A publish is confirmed when", "confirms")
    unroutable: str = _fact(
        "A message that no consumer would get is detected by", "unroutable"
    )
    knows_missing_queues: bool = _fact(
        "Publishing to a queue that does not exist, by its name, is an error",
        "error for a missing queue",
    )
    expires_unread: bool = _fact(
        "Unread messages are removed once they expire (``expires``)",
        "removal of expired messages",
    )
    tombstones: bool = _fact("Tombstones (a key without a body)", "tombstones")
    priorities: bool = _fact("Priorities", "priorities")
    priority: str = _fact("Priorities are", "priorities")

    # Delays.
    delays: str = _fact("Delays and retries are held by", "delays")
    #: In seconds.
    max_delay: float = _fact("The longest delay")
    delayed_publish: bool = _fact("``publish(delay=)``", "publishing with a delay")
    exact_delays: bool = _fact(
        "A delay is late by less than a second (otherwise by its own length at most)",
        "delays exact to a second",
    )
    unattended_delays: bool = _fact(
        "Delayed messages move on when due, with no worker running",
        "delays that end with no worker running",
    )

    # Consuming.
    order: str = _fact("Order", "order")
    #: Values of a consumer's ``ordering``.
    orderings: tuple[str, ...] = _fact("A consumer's ``ordering`` may be")
    in_order: bool = _fact(
        "A single reader gets the messages of a queue in order",
        "order within the whole queue",
    )
    keeps_place: bool = _fact(
        "A message that a worker returns keeps its place in the queue",
        "place kept for returned messages",
    )

    hands_over: bool = _fact(
        "A stopping worker returns at once the messages that it has not begun",
        "early return of messages by a stopping worker",
    )

    # Failures.
    dead_letters: str = _fact("Dead letters are kept in", "dead letters")
    exclusive_replays: bool = _fact(
        "Two simultaneous replays send each dead letter once",
        "simultaneous replays without duplicates",
    )
    counts_deaths: str = _fact("Deaths of the process are counted by", "deaths")
    counts_deliveries: bool = _fact(
        "The headers have the broker's own count of deliveries",
        "count of deliveries in the headers",
    )
    unmarked_stops: bool = _fact(
        "A clean stop makes no suspects", "clean stops without suspects"
    )
    unmarked_losses: bool = _fact(
        "A lost connection makes no suspects", "lost connections without suspects"
    )
    dates_suspects: bool = _fact(
        "The age of the oldest suspect is known without a worker",
        "age of suspects without a worker",
    )

    # Counting, without a worker.
    counts_delayed: bool = _fact(
        "The number of a queue's delayed messages is known",
        "number of delayed messages",
    )
    counts_in_hand: bool = _fact(
        "The number of messages that workers hold is known",
        "number of messages that workers hold",
    )
    counts_dead_letters: bool = _fact(
        "Dead letters are counted without reading them",
        "number of dead letters without reading them",
    )
    dates_waiting: bool = _fact(
        "The age of the oldest message that waits is known", "age of waiting messages"
    )
    counts_lag: bool = _fact("The lag of a consumer group is known", "lag")

    @property
    def title(self) -> str:
        """The broker's name, and the kind of queues if there are several kinds."""
        return f"{self.broker}, {self.kind}" if self.kind else self.broker

    @property
    def facts(self) -> Iterator[Fact]:
        """The named capabilities, in the order in which the class lists its fields."""
        for capability in fields(self):
            if capability.metadata:
                words = capability.metadata["label"], capability.metadata["short"]
                yield Fact(capability.name, *words, getattr(self, capability.name))
