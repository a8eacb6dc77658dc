"""The names that an app uses on its broker: each stands for one thing. No I/O.

A consumer brings more names than its queue's own, and the app has some, too. Where two
of them meet, one consumer's handler gets messages that are another one's, or the broker
refuses them with an error that nobody understands.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from collections.abc import Iterator

from ..errors import RegistrationError
from ..text import quote
from .topology import QueuePlan


class Name(t.NamedTuple):
    """A name, and what it stands for."""

    text: str
    #: As in "the dead letters of the consumer 'bill'".
    what: str
    #: Names in different spaces do not meet: a queue may be called like an exchange.
    space: str = "queue"
    #: Whether it was given as a :class:`kombu.Queue`.
    given: bool = False
    #: Whether they are dead letters; and whether these lie in a queue as any other.
    dead: bool = False
    readable: bool = False


def list_names(plan: QueuePlan, *, readable: bool = False) -> Iterator[Name]:
    """A consumer's queue and the two beside it.

    :param readable: Whether dead letters lie in a queue that a consumer can read.
    """
    of = f"of the consumer {quote(plan.consumer)}"
    yield Name(plan.name, f"the queue {of}", given=plan.given is not None)
    yield Name(plan.suspects, f"the suspects {of}")
    yield Name(plan.dead, f"the dead letters {of}", dead=True, readable=readable)


def check_unique(names: Iterable[Name], broker: str) -> None:
    """Refuse a name that stands for two things.

    :param broker: Its name for people.
    :raises RegistrationError: that says which two, and what to do.
    """
    known: dict[tuple[str, str], Name] = {}
    for name in names:
        other = known.setdefault((name.space, name.text), name)
        if other is not name and not (_reads(name, other) or _reads(other, name)):
            raise RegistrationError(
                f"The name {quote(name.text)} would stand for two things on {broker}:"
                f" for {other.what}, and for {name.what}. {_remedy(name, other)}"
            )


def _reads(one: Name, other: Name) -> bool:
    """Whether somebody consumes the dead letters of another consumer on purpose."""
    return one.given and other.readable


def _remedy(*names: Name) -> str:
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
            "Give the queue another name. Dead letters are no queue there that could be"
            " consumed: 'flask qconsume dead-letters' lists and replays them."
        )
    return "Give the queue another name."
