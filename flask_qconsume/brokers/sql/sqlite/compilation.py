"""Statements as text and parameters for SQLite. No I/O.

The caller's greenlet compiles a statement, since the writing thread may not use
SQLAlchemy.
"""

from __future__ import annotations

import functools
import json
import time
import typing as t
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from ..database import Insert
from ..database import NewMessage
from ..database import Step
from ..database import StepResult
from .transactions import CompiledStep

_DIALECT = sqlite.dialect(paramstyle="named")
# Otherwise SQLAlchemy writes 'id IN (...) = 1', for which SQLite uses no index.
_DIALECT.supports_native_boolean = True
_INSERT = (
    "INSERT INTO qconsume_message (queue, rank, due, since, expires, key, meta, body)"
)
_ROW = "(?, ?, ?, ?, ?, ?, ?, ?)"
#: Rows that one statement inserts. SQLite allows 32,766 parameters, and a thread that
#: the system interrupts keeps the write lock.
_MAX_ROWS_PER_INSERT = 256


def compile_step(
    statement: sa.Executable, parameters: Mapping[str, t.Any] | None = None
) -> CompiledStep:
    """Compile a statement with its parameters; a list becomes JSON."""
    text, defaults = _compile_once(statement)
    values = {
        name: json.dumps(value) if isinstance(value, list) else value
        for name, value in (parameters or {}).items()
    }
    return CompiledStep(text, {**defaults, **values})


def compile_transaction(
    steps: Sequence[Step | Insert],
) -> tuple[list[CompiledStep], list[int]]:
    """Compile steps; return also the number of statements for each step."""
    compiled = [
        list(_compile_insert(step.messages))
        if isinstance(step, Insert)
        else [compile_step(step.statement, step.parameters)]
        for step in steps
    ]
    return [each for some in compiled for each in some], [
        len(some) for some in compiled
    ]


def merge_results(
    done: Sequence[StepResult], counts: Sequence[int]
) -> list[StepResult]:
    """Return one result for each step, from those of its statements."""
    if len(done) == len(counts):
        return list(done)
    results = iter(done)
    merged = []
    for count in counts:
        parts = [next(results) for _ in range(count)]
        row = parts[0].row if parts else None
        merged.append(StepResult(sum(part.changed for part in parts), row))
    return merged


def _compile_insert(messages: Sequence[NewMessage]) -> Iterator[CompiledStep]:
    for start in range(0, len(messages), _MAX_ROWS_PER_INSERT):
        some = messages[start : start + _MAX_ROWS_PER_INSERT]
        yield CompiledStep(_format_insert(len(some)), _list_values(some))


@functools.lru_cache(maxsize=_MAX_ROWS_PER_INSERT)
def _format_insert(rows: int) -> str:
    return f"{_INSERT} VALUES {', '.join([_ROW] * rows)}"


def _list_values(messages: Sequence[NewMessage]) -> list[t.Any]:
    values: list[t.Any] = []
    now = time.time()
    for queue, rank, delay, expires, key, meta, body in messages:
        due = None if delay is None else now + delay
        values += queue, rank, due, due or now, expires and now + expires
        values += key, meta, body
    return values


@functools.lru_cache(maxsize=256)
def _compile_once(statement: t.Any) -> tuple[str, Mapping[str, t.Any]]:
    compiled = statement.compile(dialect=_DIALECT)
    return str(compiled), dict(compiled.params or {})
