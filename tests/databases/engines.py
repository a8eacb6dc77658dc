"""Engines on SQLite files of their own, and what tests ask of them."""

from __future__ import annotations

import pathlib
import time
import typing as t

import gevent
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import Session
from sqlalchemy.orm import mapped_column

from flask_qconsume.integrations.sqlalchemy import prepare_engine


class Base(DeclarativeBase):
    """The base of the tables."""


class Tea(Base):
    """A row that tests write."""

    __tablename__ = "tea"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[int] = mapped_column(default=0)


class Engines:
    """Makes engines on one file, and disposes of them."""

    def __init__(self, path: pathlib.Path) -> None:
        self.url = f"sqlite:///{path}"
        self.made: list[sa.Engine] = []

    def make(self, url: str = "", **options: t.Any) -> sa.Engine:
        """Make an engine that is not prepared; the file has the table."""
        engine = sa.create_engine(url or self.url, **options)
        self.made.append(engine)
        Base.metadata.create_all(engine)
        return engine

    def prepare(self, **options: t.Any) -> sa.Engine:
        """Make a prepared engine."""
        engine = self.make()
        prepare_engine(engine, **options)
        return engine

    def dispose(self) -> None:
        for engine in self.made:
            engine.dispose()


def count(engine: sa.Engine) -> int:
    """The number of rows that a connection of its own sees."""
    with Session(engine) as session:
        return session.scalar(sa.select(sa.func.count()).select_from(Tea)) or 0


def load(session: Session, id: int, **options: t.Any) -> Tea:
    """Return a row that is there."""
    tea = session.get(Tea, id, **options)
    assert tea is not None
    return tea


def has_begun(session: Session) -> bool:
    """Whether SQLite has a transaction on the session's connection."""
    connection: t.Any = session.connection().connection.dbapi_connection
    return bool(connection.in_transaction)


class HubGap:
    """A context manager that measures for how long the hub stands still at most."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> HubGap:
        self._last = time.perf_counter()
        self._timer = gevent.get_hub().loop.timer(0.001, repeat=0.001)
        self._timer.start(self._tick)
        return self

    def __exit__(self, *exc: object) -> None:
        self._tick()
        self._timer.stop()
        self._timer.close()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.seconds = max(self.seconds, now - self._last)
        self._last = now
