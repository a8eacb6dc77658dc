"""What a schema says of a body that it refuses, bounded.

A body of a million wrong items is refused with a million errors: the first thousand
tell as much.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from collections.abc import Iterator

from marshmallow import ValidationError

from ..errors import InvalidMessage
from ..text import shorten
from ..text import stringify

_MOST = 1_000
#: Characters of a reason; the details have more.
_LONGEST = 2_000

T = t.TypeVar("T")


def create_refusal(error: ValidationError) -> InvalidMessage:
    """The error for a body that a schema refused.

    :param error: Loses what is beyond the first thousand errors: it is shown in the
        traceback, too.
    """
    error.args = tuple(_ErrorLimit(_MOST).of(each) for each in error.args)
    error.messages = _ErrorLimit(_MOST).of(error.messages)
    text = shorten(stringify(error), _LONGEST)
    return InvalidMessage(f"the schema refused it: {text}", error.messages)


class _ErrorLimit:
    """Takes the first leaves of a tree of mappings and lists."""

    def __init__(self, most: int) -> None:
        self._left = most

    def of(self, tree: t.Any) -> t.Any:
        if isinstance(tree, dict):
            return {key: self.of(each) for key, each in self._some(tree.items())}
        if isinstance(tree, list):
            return [self.of(each) for each in self._some(tree)]
        self._left -= 1
        return tree

    def _some(self, found: Iterable[T]) -> Iterator[T]:
        for each in found:
            if self._left <= 0:
                return
            yield each
