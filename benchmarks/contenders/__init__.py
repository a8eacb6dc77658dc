"""The contenders, one file each.

A contender is a module with

* ``TITLE``: what the table calls it;
* ``BROKERS``: the names of the brokers that it can use;
* ``drain(job)``: handles all messages of the job, and calls ``Tally.one()`` for each;
* ``fill(job)``: puts the messages there, in its own envelope if it has one. A contender
  that reads plain messages leaves it out;
* ``left(job)``: how many messages the broker still has, waiting or unacknowledged; left
  out where the plain count does.

Or, for publishing, ``publish(job)`` in place of these.
"""

from __future__ import annotations

import importlib
import pkgutil
import typing as t

from ..job import Job


class Contender(t.Protocol):
    """What a module here has."""

    TITLE: str
    BROKERS: t.Collection[str]

    def drain(self, job: Job) -> None: ...

    def publish(self, job: Job) -> None: ...


def names() -> list[str]:
    """All there are."""
    return [module.name for module in pkgutil.iter_modules(__path__)]


def find(name: str) -> t.Any:
    """The contender of that name; what it needs is imported with it."""
    return importlib.import_module(f"{__name__}.{name.partition('@')[0]}")


def title(name: str) -> str:
    """What tables and pictures call it; ``NAME@BROKER`` tells the broker."""
    _, _, broker = name.partition("@")
    return find(name).TITLE + (f", on {broker}" if broker else "")
