"""Errors of a schema that refuses a body, limited in number.

A schema refuses a body of a million wrong items with a million errors; the first
thousand say as much.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from collections.abc import Iterator

from marshmallow import ValidationError

from ..errors import InvalidMessage
from ..text import shorten
from ..text import stringify

#: Errors that are kept of one body.
_MAX_ERRORS = 1_000
#: Characters of a reason; the details have the rest.
_MAX_REASON_CHARACTERS = 2_000

T = t.TypeVar("T")


def create_refusal(error: ValidationError) -> InvalidMessage:
    """Create the error for a body that a schema refused.

    :param error: Keeps its first thousand errors only, since tracebacks show it, too.
    """
    error.args = tuple(_ErrorLimit(_MAX_ERRORS).copy(each) for each in error.args)
    error.messages = _ErrorLimit(_MAX_ERRORS).copy(error.messages)
    text = shorten(stringify(error), _MAX_REASON_CHARACTERS)
    return InvalidMessage(f"the schema refused it: {text}", error.messages)


class _ErrorLimit:
    """Copies a tree of mappings and lists, up to a number of leaves."""

    def __init__(self, most: int) -> None:
        self._left = most

    def copy(self, tree: t.Any) -> t.Any:
        if isinstance(tree, dict):
            return {key: self.copy(each) for key, each in self._take(tree.items())}
        if isinstance(tree, list):
            return [self.copy(each) for each in self._take(tree)]
        self._left -= 1
        return tree

    def _take(self, found: Iterable[T]) -> Iterator[T]:
        for each in found:
            if self._left <= 0:
                return
            yield each
