"""The contenders, one file each.

A contender is a module with

* ``TITLE``: its name in tables;
* ``BROKERS``: the names of the brokers that it supports;
* ``drain(job)``: handle all messages of the job, and call ``Tally.one()`` for each;
* ``fill(job)``: fill the queue, in the contender's own format. A contender that reads
  plain messages does not need it;
* ``left(job)``: return how many messages are waiting or unacknowledged. A contender for
  which the plain count is right does not need it.

A contender for publishing has ``publish(job)`` instead.
"""

from __future__ import annotations

import importlib
import pkgutil
import typing as t

from ..job import Job


class Contender(t.Protocol):
    """The interface of a contender's module."""

    TITLE: str
    BROKERS: t.Collection[str]

    def drain(self, job: Job) -> None: ...

    def publish(self, job: Job) -> None: ...


def names() -> list[str]:
    """Return the names of all contenders."""
    return [module.name for module in pkgutil.iter_modules(__path__)]


def find(name: str) -> t.Any:
    """Import and return the contender of this name."""
    return importlib.import_module(f"{__name__}.{name.partition('@')[0]}")


def title(name: str) -> str:
    """Return the title of ``NAME`` or ``NAME@BROKER`` for tables and pictures."""
    _, _, broker = name.partition("@")
    return find(name).TITLE + (f", on {broker}" if broker else "")
