"""Topic patterns, the same on every broker, as AMQP 0-9-1 defines them.

kombu's own matcher for virtual transports is not used: there ``#`` does not match zero
words (``order.#`` must match ``order``).

Matching takes a few operations for each word of the key. A regular expression would
backtrack: six ``#`` and a routing key of 100 words took seconds.
"""

from __future__ import annotations

from functools import lru_cache

_ONE, _MANY = "*", "#"


def matches(pattern: str, routing_key: str) -> bool:
    """Return whether a binding's pattern matches a routing key.

    ``*`` matches one word, ``#`` zero or more words; words are separated by dots.
    """
    compiled = _compile(pattern)
    return pattern == routing_key if compiled is None else compiled.match(routing_key)


class _Pattern:
    """A pattern with wildcards, matched by an automaton in the bits of a number.

    The words of the key are read one by one. After each, bit ``n`` of ``states`` is set
    if the pattern's first ``n`` words match all words read so far. Each
    literal word of the pattern has a mask: bit ``n`` is set if the pattern has this
    word, or a ``*``, at index ``n``.

    :param words: The pattern's words; a ``#`` that follows a ``#`` is left out.
    """

    def __init__(self, words: list[str]) -> None:
        self._many = _create_mask(words, _MANY)
        self._one = _create_mask(words, _ONE)
        literals = set(words) - {_ONE, _MANY}
        self._masks = {w: _create_mask(words, w) | self._one for w in literals}
        self._start = self._skip_many(1)
        self._end = 1 << len(words)

    def match(self, routing_key: str) -> bool:
        states = self._start
        for word in routing_key.split("."):
            matched = states & self._masks.get(word, self._one)
            states = self._skip_many(states & self._many | matched << 1)
        return bool(states & self._end)

    def _skip_many(self, states: int) -> int:
        """Add the next state for each ``#`` reached, since ``#`` may match no words."""
        return states | (states & self._many) << 1


def _create_mask(words: list[str], word: str) -> int:
    return sum(1 << n for n, pattern_word in enumerate(words) if pattern_word == word)


@lru_cache(maxsize=4096)
def _compile(pattern: str) -> _Pattern | None:
    """Compile a pattern with wildcards; return ``None`` for a pattern without any."""
    words = pattern.split(".")
    if _ONE not in words and _MANY not in words:
        return None
    pairs = zip(words, ["", *words[:-1]], strict=True)
    return _Pattern([w for w, before in pairs if not w == before == _MANY])
