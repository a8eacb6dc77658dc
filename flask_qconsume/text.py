"""Makes text from outside fit for logs, errors and terminals. Standard library only."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

#: Unicode's categories of control characters, lone surrogates and line breaks.
_NOT_IN_NAMES = frozenset(("Cc", "Cs", "Zl", "Zp"))


def escape(value: object, length: int = 500) -> str:
    """Return a value's text, fit for a log line: in one line, and not too long.

    Text from a message or an error must not forge a log line or control a terminal.
    """
    return _escape_controls(shorten(stringify(value), length))


def quote(value: object) -> str:
    """Return a value's text in single quotes, for an error message."""
    text = value if isinstance(value, str) else _describe(repr, value)
    return f"'{escape(text)}'"


def pluralize(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 attempt``, ``2 attempts``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def find_name_problem(name: str) -> str:
    """Return why a text cannot be a name on a broker; ``""`` if it can.

    >>> find_name_problem("order.created"), find_name_problem("order\\n")
    ('', "it has '\\\\n' in it")
    """
    for character in name:
        if unicodedata.category(character) in _NOT_IN_NAMES:
            return f"it has {quote(character)} in it"
    return ""


def stringify(value: object) -> str:
    """Return ``str(value)``; if that raises an error, return a substitute."""
    return _describe(str, value)


def shorten(text: str, length: int) -> str:
    """Return a text; of a text longer than ``length``, the beginning and the end."""
    if len(text) <= length:
        return text
    head = length // 4
    return f"{text[:head]} … {text[-(length - head - 3) :]}"


def _describe(function: Callable[[object], str], value: object) -> str:
    # Python refuses numbers of more than 4,300 digits, and deeply nested values.
    try:
        return function(value)
    except BaseException:  # An error's own '__str__' may raise anything.
        return f"({type(value).__name__}, without a readable text)"


def _escape_controls(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )
