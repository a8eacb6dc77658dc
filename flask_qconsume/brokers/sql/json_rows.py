"""SQL functions that carry many rows in one JSON text, on both databases. No I/O.

A query with one row may look at many rows without stopping other greenlets; see
:meth:`.Database.read_one`.
"""

from __future__ import annotations

import json
import typing as t
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class rows_as_json(FunctionElement[str]):
    """All rows of a query with these columns, as a JSON list of lists."""

    type = sa.Text()
    inherit_cache = True


@compiles(rows_as_json, "postgresql")
def _compile_rows_for_postgresql(
    element: rows_as_json, compiler: t.Any, **options: t.Any
) -> str:
    columns = compiler.process(element.clauses, **options)
    return f"CAST(json_agg(json_build_array({columns})) AS TEXT)"


@compiles(rows_as_json, "sqlite")
def _compile_rows_for_sqlite(
    element: rows_as_json, compiler: t.Any, **options: t.Any
) -> str:
    columns = compiler.process(element.clauses, **options)
    return f"json_group_array(json_array({columns}))"


def decode_rows(text: str | None) -> list[Sequence[t.Any]]:
    """Decode the value of :class:`rows_as_json`, which is ``None`` without rows."""
    return json.loads(text) if text else []


class each_pair(FunctionElement[str]):
    """The pairs of a parameter, which is a JSON object of texts, as rows.

    The columns are ``key`` and ``value``, both texts.
    """

    inherit_cache = True


@compiles(each_pair, "postgresql")
def _compile_pairs_for_postgresql(
    element: each_pair, compiler: t.Any, **options: t.Any
) -> str:
    parameter = compiler.process(element.clauses, **options)
    return f"json_each_text(CAST({parameter} AS JSON))"


@compiles(each_pair, "sqlite")
def _compile_pairs_for_sqlite(
    element: each_pair, compiler: t.Any, **options: t.Any
) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


class contains(FunctionElement[bool]):
    """Condition that a column's text contains a parameter's, which may be empty."""

    type = sa.Boolean()
    inherit_cache = True

    def __init__(self, column: sa.ColumnElement[str], parameter: str) -> None:
        super().__init__(column, sa.bindparam(parameter, type_=sa.Text()))


@compiles(contains, "postgresql")
def _compile_contains_for_postgresql(
    element: contains, compiler: t.Any, **options: t.Any
) -> str:
    return f"strpos({compiler.process(element.clauses, **options)}) > 0"


@compiles(contains, "sqlite")
def _compile_contains_for_sqlite(
    element: contains, compiler: t.Any, **options: t.Any
) -> str:
    return f"instr({compiler.process(element.clauses, **options)}) > 0"
