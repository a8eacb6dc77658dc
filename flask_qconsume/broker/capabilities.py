"""What a broker can do, as data that ``plan``, the docs and the tests speak from.

Each field has its own words, by which tables and sentences name it. The contract suite
holds every broker to its record: what it says yes to must work, and what it says no to
must be refused, or be as it says.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields


def _words(label: str, short: str = "") -> dict[str, str]:
    """What a field is called in the docs' table, and in ``plan`` if that differs."""
    return {"label": label, "short": short or label}


class Fact(t.NamedTuple):
    """One field of a record, to be shown to people."""

    name: str
    #: As the head of a row: ``"The longest delay"``.
    label: str
    #: The same in a word or two.
    short: str
    value: t.Any

    @property
    def in_words(self) -> bool:
        """Whether it takes a sentence to tell, and not a word or a number."""
        return isinstance(self.value, str)


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What one kind of broker, or one kind of its queues, can do.

    ``True`` is always the better answer.
    """

    #: Its name for people: ``"RabbitMQ"``.
    broker: str
    #: Which of its queues, where there are several kinds: ``"quorum queues"``.
    kind: str = ""
    #: What it promises, and when it does not, in plain words.
    guarantee: str

    # Where messages are.
    shared: bool = field(
        metadata=_words(
            "Other processes see the messages", "messages that other processes see"
        )
    )
    survives_worker_death: bool = field(
        metadata=_words(
            "A message outlives the death of its worker",
            "messages that outlive their worker",
        )
    )
    durable: bool = field(
        metadata=_words(
            "A message outlives a restart of the broker",
            "messages that outlive the broker",
        )
    )
    foreign: bool = field(
        metadata=_words(
            "Programs that know nothing of us can add messages",
            "messages of foreign programs",
        )
    )
    exchanges: bool = field(
        metadata=_words("Exchanges beside the app's own", "other exchanges")
    )
    queue_arguments: bool = field(
        metadata=_words(
            "Types and arguments of a given ``kombu.Queue``",
            "types and arguments of given queues",
        )
    )
    bindings: bool = field(
        metadata=_words(
            "Bindings the code no longer has are found",
            "stale bindings",
        )
    )

    # Publishing.
    confirms: str = field(metadata=_words("A publish is confirmed when", "confirms"))
    unroutable: str = field(
        metadata=_words(
            "A message that nobody would get is noticed by",
            "unroutable",
        )
    )
    knows_missing_queues: bool = field(
        metadata=_words(
            "Publishing to a queue that does not exist, by its name, is an error",
            "error for a missing queue",
        )
    )
    expires_unread: bool = field(
        metadata=_words(
            "What nobody reads in time goes away (``expires``)",
            "expiry of what nobody reads",
        )
    )
    tombstones: bool = field(
        metadata=_words("Tombstones (a key without a body)", "tombstones")
    )
    priorities: bool = field(metadata=_words("Priorities", "priorities"))
    priority: str = field(metadata=_words("Priorities are", "priorities"))

    # Delays.
    delays: str = field(metadata=_words("Delays and retries are held by", "delays"))
    #: In seconds.
    max_delay: float = field(metadata=_words("The longest delay"))
    delayed_publish: bool = field(
        metadata=_words("``publish(delay=)``", "publishing with a delay")
    )
    exact_delays: bool = field(
        metadata=_words(
            "A delay is late by less than a second (else by its own length at most)",
            "delays exact to a second",
        )
    )
    unattended_delays: bool = field(
        metadata=_words(
            "What is due moves on with no worker running",
            "delays that end with no worker running",
        )
    )

    # Consuming.
    order: str = field(metadata=_words("Order", "order"))
    #: Values of a consumer's ``ordering``.
    orderings: tuple[str, ...] = field(
        metadata=_words("A consumer's ``ordering`` may be")
    )
    in_order: bool = field(
        metadata=_words(
            "One reader gets a queue's messages in their order",
            "order within the whole queue",
        )
    )
    keeps_place: bool = field(
        metadata=_words(
            "What is given back keeps its place in the queue",
            "place kept for what is given back",
        )
    )

    hands_over: bool = field(
        metadata=_words(
            "What a stopping worker has not begun goes to others at once",
            "early return of what a stopping worker has not begun",
        )
    )

    # Failures.
    dead_letters: str = field(
        metadata=_words("Dead letters are kept in", "dead letters")
    )
    exclusive_replays: bool = field(
        metadata=_words(
            "Two who replay at once send each dead letter once",
            "replays by two at once without doubles",
        )
    )
    counts_deaths: str = field(
        metadata=_words("Deaths of the process are counted by", "deaths")
    )
    counts_deliveries: bool = field(
        metadata=_words(
            "The broker's own count of deliveries is among the headers",
            "count of deliveries in the headers",
        )
    )
    unmarked_stops: bool = field(
        metadata=_words(
            "A clean stop makes no suspects", "clean stops without suspects"
        )
    )
    unmarked_losses: bool = field(
        metadata=_words(
            "A lost connection makes no suspects", "lost connections without suspects"
        )
    )
    dates_suspects: bool = field(
        metadata=_words(
            "The age of the oldest suspect is known without a worker",
            "age of suspects without a worker",
        )
    )

    @property
    def title(self) -> str:
        """Its name, with the kind of its queues."""
        return f"{self.broker}, {self.kind}" if self.kind else self.broker

    @property
    def facts(self) -> Iterator[Fact]:
        """All that has words of its own, in the order of the fields."""
        for one in fields(self):
            if one.metadata:
                words = one.metadata["label"], one.metadata["short"]
                yield Fact(one.name, *words, getattr(self, one.name))
