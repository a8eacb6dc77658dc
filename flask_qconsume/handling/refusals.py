"""Limits the number of errors that are kept when a schema refuses a body.

A body with a million wrong items leads to a million errors; a thousand are enough.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from collections.abc import Iterator

from marshmallow import ValidationError

from ..errors import InvalidMessage
from ..text import shorten
from ..text import stringify

#: How many errors are kept for one body.
_MAX_ERRORS = 1_000
#: Length of the longest reason in characters; the details have all errors kept.
_MAX_REASON_CHARACTERS = 2_000

T = t.TypeVar("T")


def create_refusal(error: ValidationError) -> InvalidMessage:
    """Create the error for a body that a schema refused.

    :param error: The schema's error. It loses all but its first thousand entries, since
        tracebacks show them.
    """
    error.args = tuple(
        _ErrorLimit(_MAX_ERRORS).copy(argument) for argument in error.args
    )
    error.messages = _ErrorLimit(_MAX_ERRORS).copy(error.messages)
    text = shorten(stringify(error), _MAX_REASON_CHARACTERS)
    return InvalidMessage(f"the schema refused it: {text}", error.messages)


class _ErrorLimit:
    """Copies a tree of errors, up to a limited number of them."""

    def __init__(self, max_errors: int) -> None:
        self._errors_left = max_errors

    def copy(self, tree: t.Any) -> t.Any:
        if isinstance(tree, dict):
            return {key: self.copy(branch) for key, branch in self._take(tree.items())}
        if isinstance(tree, list):
            return [self.copy(branch) for branch in self._take(tree)]
        self._errors_left -= 1
        return tree

    def _take(self, branches: Iterable[T]) -> Iterator[T]:
        for branch in branches:
            if self._errors_left <= 0:
                return
            yield branch
