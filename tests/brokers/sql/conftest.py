"""A broker with one queue, on each of the databases."""

from __future__ import annotations

import typing as t
from collections.abc import Callable

import pytest

from .tools import SqlQueue


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.broker)])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, on each kind of database."""
    return t.cast(str, request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def open_queue() -> t.Iterator[Callable[..., SqlQueue]]:
    """Opens a broker with one queue by a URL; all are closed with the test."""
    opened: list[SqlQueue] = []

    def open_by(url: str, **options: t.Any) -> SqlQueue:
        opened.append(SqlQueue(url, **options))
        return opened[-1]

    yield open_by
    for each in opened:
        each.close()


@pytest.fixture
def queue(database_url: str, open_queue: Callable[..., SqlQueue]) -> SqlQueue:
    """A broker with the queue ``billing``, which has no order."""
    return open_queue(database_url)
