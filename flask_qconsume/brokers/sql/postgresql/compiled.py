"""Statements of SQLAlchemy as text for psycopg, compiled once."""

from __future__ import annotations

import functools
import typing as t
from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import psycopg

_DIALECT = psycopg.dialect()  # type: ignore[no-untyped-call]

#: Compiled statements in the cache. This package has some thirty statements.
_MAX_STATEMENTS = 256


def compile_statement(
    statement: sa.Executable, parameters: Mapping[str, t.Any]
) -> tuple[str, dict[str, t.Any]]:
    """Return the text and the values of a statement."""
    text, defaults = _compile_once(statement)
    return text, {**defaults, **parameters}


@functools.lru_cache(_MAX_STATEMENTS)
def _compile_once(statement: t.Any) -> tuple[str, Mapping[str, t.Any]]:
    compiled = statement.compile(dialect=_DIALECT)
    return str(compiled), dict(compiled.params or {})
