"""The names that an app uses on its broker, each of which must be unique. No I/O.

A consumer uses further names beside its queue's, and so does the app. If two are equal,
one consumer gets the messages of another, or the broker refuses the declaration with an
error that does not tell the cause.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from collections.abc import Iterator

from ..errors import RegistrationError
from ..text import quote
from .topology import QueuePlan


class Name(t.NamedTuple):
    """A name on the broker, with a description of what the app uses it for."""

    text: str
    #: Such as "the dead letters of the consumer 'bill'".
    what: str
    #: Names must be unique in a space: a queue and an exchange may have the same name.
    space: str = "queue"
    #: True if the queue was given as a :class:`kombu.Queue`.
    given: bool = False
    #: True if the name stands for dead letters.
    dead: bool = False
    #: True if these dead letters are in a queue that a consumer can read.
    readable: bool = False


def list_names(plan: QueuePlan, *, readable: bool = False) -> Iterator[Name]:
    """List the names of a consumer's three queues: messages, suspects, dead letters.

    :param readable: Whether the dead letters are in a queue that a consumer can read.
    """
    of = f"of the consumer {quote(plan.consumer)}"
    yield Name(plan.name, f"the queue {of}", given=plan.given is not None)
    yield Name(plan.suspects, f"the suspects {of}")
    yield Name(plan.dead, f"the dead letters {of}", dead=True, readable=readable)


def check_unique(names: Iterable[Name], broker: str) -> None:
    """Refuse a name on the broker that is used for two different things.

    :param broker: The broker's name, for the error.
    :raises RegistrationError: with both uses of the name, and what to do.
    """
    names_by_text: dict[tuple[str, str], Name] = {}
    for name in names:
        other_name = names_by_text.setdefault((name.space, name.text), name)
        if other_name is not name and not (
            _consumes(name, other_name) or _consumes(other_name, name)
        ):
            raise RegistrationError(
                f"The name {quote(name.text)} would stand for two things on {broker}:"
                f" for {other_name.what}, and for {name.what}."
                f" {_suggest(name, other_name)}"
            )


def _consumes(queue: Name, other: Name) -> bool:
    """Return whether ``queue``, a kombu.Queue, consumes the dead letters ``other``."""
    return queue.given and other.readable


def _suggest(*names: Name) -> str:
    text = quote(names[0].text)
    if names[0].space == "exchange":
        return "Bind the queue to another exchange."
    if any(name.readable for name in names):
        return (
            "Give the queue another name; or, to consume these dead letters on purpose,"
            f" give kombu.Queue({text}, no_declare=True)."
        )
    if any(name.dead for name in names):
        return (
            "Give the queue another name. Dead letters cannot be consumed there:"
            " 'flask qconsume dead-letters' lists and replays them."
        )
    return "Give the queue another name."
