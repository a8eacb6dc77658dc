"""Outcomes: they say what happens to a message after its handler ran.

A handler, a hook or an error handler returns or raises an outcome. Outcomes are plain
exception classes with an ``__eq__`` of their own: a frozen dataclass cannot be raised
twice, because Python sets ``__traceback__`` on it.
"""

from __future__ import annotations

import typing as t

from .seconds import Duration
from .seconds import parse_seconds
from .text import quote


class Outcome(Exception):
    """The base class of the four outcomes; use one of those."""

    def __init__(self, *args: t.Any) -> None:
        if type(self) is Outcome:
            raise TypeError("Use 'Ack', 'Retry', 'Reject' or 'Drop', not 'Outcome'.")
        super().__init__(*args)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *sorted(vars(self).items())))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({fields})"

    __str__ = __repr__


class Ack(Outcome):
    """Acknowledge the message: it was handled."""

    def __init__(self) -> None:
        super().__init__()


class Retry(Outcome):
    """Handle the message again later, which counts as one more attempt.

    :param delay: Seconds until that attempt, or a :class:`~datetime.timedelta`;
        ``None`` means the retry policy's delay. A broker with a longest delay cuts
        longer ones. The policy's ``max_attempts`` applies either way.
    """

    def __init__(self, delay: Duration | None = None) -> None:
        super().__init__()
        #: Seconds, or ``None``.
        self.delay = None if delay is None else _parse_delay(delay)


def _parse_delay(delay: t.Any) -> float:
    try:
        return parse_seconds(delay)
    except (TypeError, ValueError):
        raise ValueError(
            f"'delay' must be seconds from 0 up, or a timedelta, not {quote(delay)}."
        ) from None


class Reject(Outcome):
    """Keep the message as a dead letter.

    :param reason: A sentence for the reader of the dead letter.
    """

    def __init__(self, reason: str) -> None:
        # Copying and pickling call the class with 'args'.
        super().__init__(reason)
        self.reason = str(reason)


class Drop(Outcome):
    """Acknowledge the message although it was not handled.

    :param reason: A sentence for the log.
    """

    def __init__(self, reason: str) -> None:
        # Copying and pickling call the class with 'args'.
        super().__init__(reason)
        self.reason = str(reason)


def find_kind(outcome: Outcome) -> type[Outcome]:
    """Return which of the four outcomes this is, also of a class of the app's."""
    kinds = (each for each in (Ack, Retry, Reject) if isinstance(outcome, each))
    return next(kinds, Drop)
