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

from ..broker.dead_letters import DeadLetter
from ..broker.dead_letters import DeadLetterFilter
from ..broker.dead_letters import DeadLetters
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
class DeadLetterSelection:
    """The dead letters that a command works on."""

    queues: tuple[tuple[QueuePlan, DeadLetters], ...]
    filter: DeadLetterFilter
    formats: Formats
    #: Schemas of the consumers, by queue.
    schemas: Mapping[str, t.Any]
    #: Refs and ids of the selected dead letters.
    found_ids: set[str] = field(default_factory=set)

    def get_decoders(self, letter: DeadLetter) -> Decoders:
        """Return functions that decode a dead letter's body, by content type."""
        return self.formats.decoders(schema=self.schemas.get(letter.queue))

    def count(self) -> int:
        """Count the dead letters that the commands have to look at."""
        return sum(letters.count() for _, letters in self.queues)

    @contextlib.contextmanager
    def open_letters(self) -> Iterator[Iterator[DeadLetter]]:
        """Yield the selected dead letters of each queue, the oldest first."""
        letters = self._iter_letters()
        with contextlib.closing(letters):
            yield letters

    def _iter_letters(self) -> t.Generator[DeadLetter, None, None]:
        for _, letters in self.queues:
            yield from (letter for letter in letters if self.selects(letter))

    def selects(self, letter: DeadLetter) -> bool:
        """Return whether a dead letter is selected; remember its id if so."""
        if not self.filter(letter):
            return False
        self.found_ids.update(filter(None, (letter.ref, letter.message.id)))
        return True

    def check_ids(self) -> None:
        """Check that a dead letter was found for every given id.

        :raises UnknownConsumer: if an id was not found.
        """
        missing = ", ".join(map(quote, sorted(self.filter.ids - self.found_ids)))
        if missing:
            raise UnknownConsumer(
                f"There is no dead letter {missing} in these queues. 'flask qconsume"
                " dead-letters list' shows all of them."
            )


def with_selection(function: F) -> F:
    """Decorator for commands: adds the options that select dead letters.

    The command gets a :class:`DeadLetterSelection` instead of these options.
    """

    @with_consumers
    def wrapper(app: AppConsumers, /, **options: t.Any) -> t.Any:
        check_shared(app, "look at dead letters")
        chosen = {name: options.pop(name) for name in _OPTION_NAMES}
        return function(_create_selection(app, **chosen), **options)

    decorated = functools.update_wrapper(wrapper, function)
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return t.cast(F, decorated)


_OPTION_NAMES = (
    "names",
    "queue",
    "consumer",
    "error",
    "older_than",
    "newer_than",
    "id",
)

_OPTIONS: tuple[Callable[[t.Any], t.Any], ...] = (
    click.argument("names", nargs=-1, metavar="[QUEUE|CONSUMER]..."),
    click.option("--queue", multiple=True, help="Only dead letters of this queue."),
    click.option(
        "--consumer", multiple=True, help="Only dead letters of this consumer."
    ),
    click.option(
        "--error", help="Only dead letters with this text in the error or the reason."
    ),
    click.option(
        "--older-than",
        type=Duration(),
        help="Only dead letters older than this, as in 2h.",
    ),
    click.option(
        "--newer-than", type=Duration(), help="Only dead letters newer than this."
    ),
    click.option(
        "--id",
        multiple=True,
        metavar="REF",
        help="Only this dead letter, by its ref or its message's id.",
    ),
)


def _create_selection(
    app: AppConsumers,
    names: tuple[str, ...],
    queue: tuple[str, ...],
    consumer: tuple[str, ...],
    error: str | None,
    older_than: float | None,
    newer_than: float | None,
    id: tuple[str, ...],
) -> DeadLetterSelection:
    now = time.time()
    plans = app.topology.queues
    # A name may have the prefix, as on the broker, or not, as in the code.
    by_queue = {plan.name.removeprefix(plan.prefix): plan for plan in plans}
    by_queue |= {plan.name: plan for plan in plans}
    by_consumer = {plan.consumer: plan for plan in plans}
    chosen = [
        *(
            _find_queue("queue or consumer", {**by_queue, **by_consumer}, n)
            for n in names
        ),
        *(_find_queue("queue", by_queue, name) for name in queue),
        *(_find_queue("consumer", by_consumer, name) for name in consumer),
    ]
    wanted = DeadLetterFilter(
        error=error,
        before=None if older_than is None else now - older_than,
        after=None if newer_than is None else now - newer_than,
        ids=frozenset(id),
    )
    return DeadLetterSelection(
        queues=tuple(
            (plan, app.broker.dead_letters(plan).narrow(wanted))
            for plan in plans
            if not chosen or plan in chosen
        ),
        filter=wanted,
        formats=app.formats,
        schemas={each.queue: each.schema for each in app.consumers.values()},
    )


def _find_queue(what: str, known: dict[str, QueuePlan], name: str) -> QueuePlan:
    if name not in known:
        raise UnknownConsumer(
            f"The app has no {what} {quote(name)}{suggest(name, known)} It has:"
            f" {', '.join(sorted(known))}."
        )
    return known[name]
