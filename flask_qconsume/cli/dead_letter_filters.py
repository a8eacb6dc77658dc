"""Selection of dead letters by the arguments and options of a command."""

from __future__ import annotations

import contextlib
import functools
import time
import typing as t
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field

import click

from ..broker import headers as own_headers
from ..broker.base import DeadLetter
from ..broker.base import DeadLetters
from ..broker.topology import QueuePlan
from ..errors import UnknownConsumer
from ..extension import AppConsumers
from ..formats.table import Decoders
from ..formats.table import Formats
from ..settings import suggest
from ..text import quote
from .context import check_shared
from .context import with_consumers
from .durations import Duration

F = t.TypeVar("F", bound=Callable[..., t.Any])


@dataclass(frozen=True)
class Filter:
    """Conditions on a dead letter."""

    #: A part of the error or the reason; case is ignored.
    error: str | None = None
    #: Bounds of the time of its rejection, in seconds since 1970.
    before: float | None = None
    after: float | None = None
    #: Refs, or ids of messages.
    ids: frozenset[str] = frozenset()

    def __call__(self, letter: DeadLetter) -> bool:
        return self._names(letter) and self._fits(letter) and self._is_of_age(letter)

    def _names(self, letter: DeadLetter) -> bool:
        return not self.ids or letter.ref in self.ids or letter.message.id in self.ids

    def _fits(self, letter: DeadLetter) -> bool:
        if self.error is None:
            return True
        said = (own_headers.read_text(letter.headers, name) or "" for name in _SAYS_WHY)
        return any(self.error.casefold() in text.casefold() for text in said)

    def _is_of_age(self, letter: DeadLetter) -> bool:
        if self.before is None and self.after is None:
            return True
        died_at = own_headers.read_time(letter.headers, own_headers.DIED_AT)
        if died_at is None:
            return False
        return (self.before is None or died_at <= self.before) and (
            self.after is None or died_at >= self.after
        )


_SAYS_WHY = (own_headers.ERROR, own_headers.REASON)


@dataclass(frozen=True)
class Selection:
    """The dead letters that a command selects."""

    queues: tuple[tuple[QueuePlan, DeadLetters], ...]
    filter: Filter
    formats: Formats
    #: Schemas of the consumers, by queue.
    schemas: Mapping[str, t.Any]
    #: Refs and ids of the selected dead letters.
    met: set[str] = field(default_factory=set)

    def decoders(self, letter: DeadLetter) -> Decoders:
        """Decoders for the body of a letter, accepted by its consumer or not."""
        return self.formats.decoders(schema=self.schemas.get(letter.queue))

    def count(self) -> int:
        """Count all dead letters in the queues, selected or not."""
        return sum(letters.count() for _, letters in self.queues)

    @contextlib.contextmanager
    def letters(self) -> Iterator[Iterator[DeadLetter]]:
        """Yield the selected dead letters, queue by queue, the oldest first."""
        found = self._letters()
        with contextlib.closing(found):
            yield found

    def _letters(self) -> t.Generator[DeadLetter, None, None]:
        for _, letters in self.queues:
            yield from (letter for letter in letters if self.wants(letter))

    def wants(self, letter: DeadLetter) -> bool:
        """Whether a dead letter is selected."""
        if not self.filter(letter):
            return False
        self.met.update(filter(None, (letter.ref, letter.message.id)))
        return True

    def check_ids(self) -> None:
        """Check that every given id was found.

        :raises UnknownConsumer: if one was not.
        """
        missing = ", ".join(map(quote, sorted(self.filter.ids - self.met)))
        if missing:
            raise UnknownConsumer(
                f"There is no dead letter {missing} there. 'flask qconsume dead-letters"
                " list' shows all of them."
            )


def with_selection(function: F) -> F:
    """Give a command the arguments that select, and call it with a Selection."""

    @with_consumers
    def wrapper(app: AppConsumers, /, **options: t.Any) -> t.Any:
        check_shared(app, "look at dead letters")
        chosen = {name: options.pop(name) for name in _NAMES}
        return function(_selection(app, **chosen), **options)

    decorated = functools.update_wrapper(wrapper, function)
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return t.cast(F, decorated)


_NAMES = ("names", "queue", "consumer", "error", "older_than", "newer_than", "id")

_OPTIONS: tuple[Callable[[t.Any], t.Any], ...] = (
    click.argument("names", nargs=-1, metavar="[QUEUE|CONSUMER]..."),
    click.option("--queue", multiple=True, help="Those of this queue."),
    click.option("--consumer", multiple=True, help="Those of this consumer."),
    click.option(
        "--error", help="With this in the error's class, its text or the reason."
    ),
    click.option("--older-than", type=Duration(), help="Dead for longer, as in 2h."),
    click.option("--newer-than", type=Duration(), help="Dead for less long."),
    click.option("--id", multiple=True, metavar="REF", help="This one, or its id."),
)


def _selection(
    app: AppConsumers,
    names: tuple[str, ...],
    queue: tuple[str, ...],
    consumer: tuple[str, ...],
    error: str | None,
    older_than: float | None,
    newer_than: float | None,
    id: tuple[str, ...],
) -> Selection:
    now = time.time()
    plans = app.topology.queues
    # With the prefix, as on the broker, or without it, as in the code.
    by_queue = {plan.name.removeprefix(plan.prefix): plan for plan in plans}
    by_queue |= {plan.name: plan for plan in plans}
    by_consumer = {plan.consumer: plan for plan in plans}
    chosen = [
        *(_named("queue or consumer", {**by_queue, **by_consumer}, n) for n in names),
        *(_named("queue", by_queue, name) for name in queue),
        *(_named("consumer", by_consumer, name) for name in consumer),
    ]
    return Selection(
        queues=tuple(
            (plan, app.broker.dead_letters(plan))
            for plan in plans
            if not chosen or plan in chosen
        ),
        filter=Filter(
            error=error,
            before=None if older_than is None else now - older_than,
            after=None if newer_than is None else now - newer_than,
            ids=frozenset(id),
        ),
        formats=app.formats,
        schemas={each.queue: each.schema for each in app.consumers.values()},
    )


def _named(what: str, known: dict[str, QueuePlan], name: str) -> QueuePlan:
    if name not in known:
        raise UnknownConsumer(
            f"The app has no {what} {quote(name)}{suggest(name, known)} It has:"
            f" {', '.join(sorted(known))}."
        )
    return known[name]
