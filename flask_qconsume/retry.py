"""Retry policies: if and when a failed message is handled again. No clock, no I/O."""

from __future__ import annotations

import random as _random
import typing as t
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields
from importlib import import_module

from .errors import ConfigurationError
from .outcomes import Outcome
from .outcomes import Reject
from .outcomes import Retry
from .seconds import Duration
from .seconds import parse_seconds
from .text import escape
from .text import quote

ErrorClass = type[BaseException]

#: One exception class or several, or their dotted names.
ErrorClasses = ErrorClass | str | Sequence[ErrorClass | str]

_WEEK = 604_800.0

#: The relative error that rounding may make: 0.3 / 1.5 is a little less than 0.2, and
#: an error text has 9 digits.
_ROUNDING = 1e-8


@dataclass(frozen=True, init=False)
class RetryPolicy:
    """Decides if and when a message is handled again after its handler raised.

    The delay after attempt *n* is ``b * uniform(1, 1 + jitter)`` with
    ``b = min(max_delay / (1 + jitter), min_delay * factor ** (n - 1))``. So no delay is
    shorter than ``min_delay`` or longer than ``max_delay``. With the defaults, the
    delays are at least 1, 4, 16, 64 and 256 seconds, and at most half as much longer.

    :param max_attempts: The number of times that the handler runs, the first included;
        1 means no retries.
    :param min_delay: The shortest delay before the second attempt: seconds or a
        :class:`~datetime.timedelta`.
    :param factor: The number by which each further delay is multiplied.
    :param max_delay: The longest delay of all: seconds or a
        :class:`~datetime.timedelta`.
    :param jitter: The random part of a delay, from 0 to 1: it spreads messages that
        failed together.
    :param retry_on: Retry only errors of these classes (classes, or their dotted
        names). Errors that are not an :class:`Exception`, such as ``SystemExit`` or a
        time limit, are retried as well.
    :param give_up_on: Never retry errors of these classes.
    :raises ConfigurationError: for a value that makes no sense.
    """

    max_attempts: int
    min_delay: float
    factor: float
    max_delay: float
    jitter: float
    retry_on: tuple[ErrorClass, ...]
    give_up_on: tuple[ErrorClass, ...]

    def __init__(
        self,
        max_attempts: int = 6,
        min_delay: Duration = 1.0,
        factor: float = 4.0,
        max_delay: Duration = 900.0,
        jitter: float = 0.5,
        retry_on: ErrorClasses = (Exception,),
        give_up_on: ErrorClasses = (),
    ) -> None:
        vars(self).update(
            max_attempts=_check_attempts(max_attempts),
            min_delay=_check_delay("min_delay", min_delay),
            factor=_check_number("factor", factor, 1, 1_000),
            max_delay=_check_delay("max_delay", max_delay),
            jitter=_check_number("jitter", jitter, 0, 1),
            retry_on=_load_classes("retry_on", retry_on),
            give_up_on=_load_classes("give_up_on", give_up_on),
        )
        self._check_room_for_jitter()

    @classmethod
    def from_mapping(cls, options: t.Mapping[str, t.Any]) -> RetryPolicy:
        """Create a policy from a mapping of its arguments, as in configuration.

        :raises ConfigurationError: for an unknown name or a wrong value.
        """
        option_names = {field.name for field in fields(cls)}
        for name in options:
            if name not in option_names:
                raise ConfigurationError(
                    f"A retry policy has no {quote(name)}. It has:"
                    f" {', '.join(sorted(option_names))}."
                )
        return cls(**options)

    def delay(
        self, attempt: int, random: Callable[[], float] = _random.random
    ) -> float:
        """Return the seconds to wait after attempt number ``attempt``.

        :param random: A source of numbers from 0 to 1.
        """
        delay = self.shortest_delay(attempt) * (1 + self.jitter * random())
        # Dividing by '1 + jitter' and multiplying again may round up.
        return min(self.max_delay, delay)

    def shortest_delay(self, attempt: int) -> float:
        """Return the shortest delay after an attempt, in seconds: without jitter."""
        # Rounding may make the quotient a little less than 'min_delay'.
        longest = max(self.min_delay, self.max_delay / (1 + self.jitter))
        # A large exponent overflows a float (of whole numbers it would make one with
        # millions of digits); the delay is then the longest one.
        try:
            return min(longest, self.min_delay * float(self.factor) ** (attempt - 1))
        except OverflowError:
            return longest if self.min_delay else 0.0

    def longest_delay(self, attempt: int) -> float:
        """Return the longest delay after an attempt, in seconds: with full jitter."""
        return self.delay(attempt, lambda: 1.0)

    def decide(
        self,
        attempt: int,
        error: BaseException,
        random: Callable[[], float] = _random.random,
    ) -> Outcome:
        """Return the outcome when attempt number ``attempt`` raised ``error``."""
        if not self.retries(error):
            return Reject(f"{type(error).__name__} is not retried")
        return self.again(attempt, random=random)

    def again(
        self,
        attempt: int,
        delay: float | None = None,
        random: Callable[[], float] = _random.random,
    ) -> Outcome:
        """Return a ``Retry``; after the last attempt, return a ``Reject``.

        :param delay: Seconds; ``None`` means the policy's own delay.
        """
        if attempt >= self.max_attempts:
            return Reject(_describe_end(attempt, self.max_attempts))
        return Retry(self.delay(attempt, random) if delay is None else delay)

    def retries(self, error: BaseException) -> bool:
        """Return whether errors of this class are retried."""
        if isinstance(error, self.give_up_on):
            return False
        return isinstance(error, self.retry_on) or not isinstance(error, Exception)

    def _check_room_for_jitter(self) -> None:
        max_min_delay = self.max_delay / (1 + self.jitter)
        least = self.min_delay * (1 + self.jitter)
        if self.min_delay <= max_min_delay * (1 + _ROUNDING):
            return
        advice = f"Make 'min_delay' {max_min_delay:.9g} at the most"
        if least <= _WEEK:
            advice += f", or 'max_delay' at least {least:.9g}"
        raise ConfigurationError(
            f"A retry policy's 'min_delay' of {self.min_delay:.9g} s does not fit below"
            f" its 'max_delay' of {self.max_delay:.9g} s: a 'jitter' of"
            f" {self.jitter:g} makes delays up to {1 + self.jitter:.9g} times as long."
            f" {advice}."
        )


def _check_attempts(value: t.Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        wanted = "a whole number from 1 up (1 means no retries)"
        raise _describe_wrong("max_attempts", value, wanted)
    return value


def _check_delay(name: str, value: t.Any) -> float:
    try:
        return parse_seconds(value, 0, _WEEK)
    except (TypeError, ValueError):
        wanted = f"a number of seconds from 0 to {_WEEK:g}, or a timedelta"
        raise _describe_wrong(name, value, wanted) from None


def _check_number(name: str, value: t.Any, least: float, most: float) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:
        wanted = f"a number from {least:g} to {most:g}"
        raise _describe_wrong(name, value, wanted)
    return t.cast(float, value)


def _load_classes(name: str, value: t.Any) -> tuple[ErrorClass, ...]:
    values = value if isinstance(value, (list, tuple)) else (value,)
    return tuple(_load_class(name, item) for item in values)


def _load_class(name: str, value: t.Any) -> ErrorClass:
    error_class = _import_name(name, value) if isinstance(value, str) else value
    if not (isinstance(error_class, type) and issubclass(error_class, BaseException)):
        wanted = "exception classes or their dotted names"
        raise _describe_wrong(name, value, wanted)
    return error_class


def _import_name(name: str, dotted: str) -> t.Any:
    module, _, attribute = dotted.rpartition(".")
    try:
        return getattr(import_module(module or "builtins"), attribute)
    except Exception as error:
        # A module that is imported for the first time may raise anything.
        raise ConfigurationError(
            f"A retry policy's '{name}' names {quote(dotted)}, which cannot be"
            f" imported: {escape(error)}."
        ) from error


def _describe_end(attempt: int, max_attempts: int) -> str:
    if max_attempts == 1:
        return "failed its only attempt"
    return f"failed {attempt} of {max_attempts} attempts"


def _describe_wrong(name: str, value: t.Any, wanted: str) -> ConfigurationError:
    return ConfigurationError(
        f"A retry policy's '{name}' must be {wanted}, not {quote(value)}."
    )
