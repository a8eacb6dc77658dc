"""Text from outside, made fit to be shown. Standard library only."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

#: Unicode's categories of control characters, lone surrogates and breaks of lines.
_NOT_IN_NAMES = frozenset(("Cc", "Cs", "Zl", "Zp"))


def escape(value: object, length: int = 500) -> str:
    """The text of something in one line, without control characters, not too long.

    What a message or an error says must not be able to forge a line of a log or a
    sequence of a terminal.
    """
    return _escaped(shorten(stringify(value), length))


def quote(value: object) -> str:
    """A value that somebody gave us, in single quotes, for an error message."""
    text = value if isinstance(value, str) else _had(repr, value)
    return f"'{escape(text)}'"


def pluralize(number: int, noun: str) -> str:
    """A number and its noun: ``1 attempt``, ``2 attempts``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def find_name_problem(name: str) -> str:
    """What keeps a text from being a name on a broker; empty if nothing does.

    >>> problem_of("order.created"), problem_of("order\\n")
    ('', "it has '\\\\n' in it")
    """
    for character in name:
        if unicodedata.category(character) in _NOT_IN_NAMES:
            return f"it has {quote(character)} in it"
    return ""


def stringify(value: object) -> str:
    """``str(value)``, also of errors whose own ``__str__`` raises."""
    return _had(str, value)


def shorten(text: str, length: int) -> str:
    """The text, or its beginning and end where it is longer than ``length``."""
    if len(text) <= length:
        return text
    head = length // 4
    return f"{text[:head]} … {text[-(length - head - 3) :]}"


def _had(text: Callable[[object], str], value: object) -> str:
    # Python writes no number of more than 4,300 digits, and nothing nested deeply.
    try:
        return text(value)
    except BaseException:  # An error's own text may raise anything.
        return f"({type(value).__name__}, whose text cannot be had)"


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )
