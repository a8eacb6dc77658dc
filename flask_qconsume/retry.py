"""When a failed message is tried again, and when no more. Pure: no clock, no I/O."""

from __future__ import annotations

import random as _random
import typing as t
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import fields
from importlib import import_module

from .errors import ConfigurationError
from .outcomes import Outcome
from .outcomes import Reject
from .outcomes import Retry
from .text import escape
from .text import quote

ErrorClass = type[BaseException]


@dataclass(frozen=True)
class RetryPolicy:
    """What to do with a message whose handler raised.

    The delay after attempt *n* is ``min(max_delay, min_delay * factor ** (n - 1))``
    times a random number between ``1 - jitter`` and 1. With the defaults that is about
    1, 4, 16, 64 and 256 seconds.

    :param max_attempts: How often the handler runs at the most, the first included.
    :param min_delay: Seconds before the second attempt.
    :param factor: What each further delay is multiplied by.
    :param max_delay: Seconds, the longest delay.
    :param jitter: The part of a delay that is random, from 0 to 1, so that messages
        which failed together do not come back together.
    :param retry_on: Only errors of these classes are retried (classes, or their dotted
        names). What is no :class:`Exception` at all (``SystemExit``, a time limit) is
        retried too.
    :param give_up_on: Errors of these classes are never retried.
    :raises ConfigurationError: for a value that makes no sense.
    """

    max_attempts: int = 6
    min_delay: float = 1.0
    factor: float = 4.0
    max_delay: float = 900.0
    jitter: float = 0.5
    retry_on: tuple[ErrorClass, ...] = (Exception,)
    give_up_on: tuple[ErrorClass, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "retry_on", _classes("retry_on", self.retry_on))
        object.__setattr__(self, "give_up_on", _classes("give_up_on", self.give_up_on))
        if not _is_whole(self.max_attempts) or self.max_attempts < 1:
            wanted = "a whole number from 1 up (1 means no retries)"
            raise _wrong("max_attempts", self.max_attempts, wanted)
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not _is_number(value) or not low <= value <= high:
                kind = "a number of seconds" if "delay" in name else "a number"
                raise _wrong(name, value, f"{kind} from {low:g} to {high:g}")

    @classmethod
    def from_mapping(cls, options: t.Mapping[str, t.Any]) -> RetryPolicy:
        """Build a policy from configuration.

        :raises ConfigurationError: for an unknown name or a wrong value.
        """
        known = {field.name for field in fields(cls)}
        for name in options:
            if name not in known:
                raise ConfigurationError(
                    f"A retry policy has no {quote(name)}. It has:"
                    f" {', '.join(sorted(known))}."
                )
        return cls(**options)

    def delay(
        self, attempt: int, random: Callable[[], float] = _random.random
    ) -> float:
        """The seconds to wait after attempt number ``attempt``.

        :param random: A source of numbers from 0 to 1.
        """
        # A large exponent overflows a float (of whole numbers it would make one with
        # millions of digits); the delay is then the longest one.
        try:
            growth = float(self.factor) ** (attempt - 1)
            full = min(self.max_delay, self.min_delay * growth)
        except OverflowError:
            full = self.max_delay if self.min_delay else 0.0
        return full * (1 - self.jitter * random())

    def decide(
        self,
        attempt: int,
        error: BaseException,
        random: Callable[[], float] = _random.random,
    ) -> Outcome:
        """The outcome when attempt number ``attempt`` raised ``error``."""
        if not self.retries(error):
            return Reject(f"{type(error).__name__} is not retried")
        return self.again(attempt, random=random)

    def again(
        self,
        attempt: int,
        delay: float | None = None,
        random: Callable[[], float] = _random.random,
    ) -> Outcome:
        """A retry after ``delay`` or the policy's own, or the end of the attempts."""
        if attempt >= self.max_attempts:
            return Reject(_failed(attempt, self.max_attempts))
        return Retry(self.delay(attempt, random) if delay is None else delay)

    def retries(self, error: BaseException) -> bool:
        """Whether an error of this class is retried at all."""
        if isinstance(error, self.give_up_on):
            return False
        return isinstance(error, self.retry_on) or not isinstance(error, Exception)


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("min_delay", 0, 604_800),
    ("factor", 1, 1_000),
    ("max_delay", 0, 604_800),
    ("jitter", 0, 1),
)


def _classes(name: str, value: t.Any) -> tuple[ErrorClass, ...]:
    values = value if isinstance(value, (list, tuple)) else (value,)
    return tuple(_error_class(name, item) for item in values)


def _error_class(name: str, value: t.Any) -> ErrorClass:
    found = _load(name, value) if isinstance(value, str) else value
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise _wrong(name, value, "exception classes or their dotted names")
    return found


def _load(name: str, dotted: str) -> t.Any:
    module, _, attribute = dotted.rpartition(".")
    try:
        return getattr(import_module(module or "builtins"), attribute)
    except Exception as error:
        # A module that is imported for the first time may raise anything.
        raise ConfigurationError(
            f"A retry policy's '{name}' names {quote(dotted)}, which cannot be"
            f" imported: {escape(error)}."
        ) from error


def _failed(attempt: int, most: int) -> str:
    if most == 1:
        return "failed its only attempt"
    return f"failed {attempt} of {most} attempts"


def _is_whole(value: t.Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: t.Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _wrong(name: str, value: t.Any, wanted: str) -> ConfigurationError:
    return ConfigurationError(
        f"A retry policy's '{name}' must be {wanted}, not {quote(value)}."
    )
