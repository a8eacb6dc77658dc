"""What is to become of a message once it was handled. Knows nothing else.

An outcome may be returned or raised, by a handler, a hook or an error handler. They are
plain exception classes with ``__eq__`` by hand: a frozen dataclass cannot be raised
twice (Python sets ``__traceback__`` on it).
"""

from __future__ import annotations

import typing as t


class Outcome(Exception):
    """The base of the four outcomes; use one of them."""

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
    """The message is done with."""

    def __init__(self) -> None:
        super().__init__()


class Retry(Outcome):
    """Handle the message again later, as one more attempt.

    :param delay: Seconds until then; ``None`` leaves it to the retry policy. The
        policy's ``max_attempts`` counts either way.
    """

    def __init__(self, delay: float | None = None) -> None:
        if delay is not None and not _is_seconds(delay):
            raise ValueError(
                f"'delay' must be seconds from 0 up, a number, not '{delay}'."
            )
        super().__init__()
        self.delay = delay


def _is_seconds(value: t.Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 <= value < float("inf")


class Reject(Outcome):
    """Keep the message as a dead letter.

    :param reason: Why, for the person who reads the dead letter.
    """

    def __init__(self, reason: str) -> None:
        # Handed on, or it could be neither copied nor pickled.
        super().__init__(reason)
        self.reason = str(reason)


class Drop(Outcome):
    """Forget the message on purpose.

    :param reason: Why, for the log.
    """

    def __init__(self, reason: str) -> None:
        # Handed on, or it could be neither copied nor pickled.
        super().__init__(reason)
        self.reason = str(reason)
