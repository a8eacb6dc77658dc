"""Topic patterns, the same on every broker, as AMQP 0-9-1 defines them.

kombu's own matcher for virtual transports is not used: it does not let ``#`` stand for
no word at all (``order.#`` must match ``order``).

A pattern is a nondeterministic automaton, whose states are the bits of a number: a
match takes a few operations for each word. A regular expression would backtrack: with
six ``#`` in a pattern, a routing key of 100 words took it seconds.
"""

from __future__ import annotations

from functools import lru_cache

_ONE, _ANY = "*", "#"


def matches(pattern: str, routing_key: str) -> bool:
    """Whether a binding's pattern takes a routing key.

    ``*`` stands for one word, ``#`` for any number of words, none included; words stand
    between dots.
    """
    compiled = _compiled(pattern)
    return pattern == routing_key if compiled is None else compiled.takes(routing_key)


class _Pattern:
    """A pattern with wildcards.

    In a set of states, bit ``n`` stands for: the first ``n`` words of the pattern have
    taken all words so far. In a mask, it stands for the word behind them.

    :param words: Of which no two neighbours are ``#``: they mean what one means.
    """

    def __init__(self, words: list[str]) -> None:
        self._any = _mask(words, _ANY)
        self._one = _mask(words, _ONE)
        literals = set(words) - {_ONE, _ANY}
        self._of = {word: _mask(words, word) | self._one for word in literals}
        self._first = self._skipping(1)
        self._last = 1 << len(words)

    def takes(self, routing_key: str) -> bool:
        states = self._first
        for word in routing_key.split("."):
            taken = states & self._of.get(word, self._one)
            states = self._skipping(states & self._any | taken << 1)
        return bool(states & self._last)

    def _skipping(self, states: int) -> int:
        """With the states behind each ``#``, which may stand for no word."""
        return states | (states & self._any) << 1


def _mask(words: list[str], word: str) -> int:
    return sum(1 << n for n, each in enumerate(words) if each == word)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> _Pattern | None:
    """The pattern; ``None`` for one without wildcards."""
    words = pattern.split(".")
    if _ONE not in words and _ANY not in words:
        return None
    pairs = zip(words, ["", *words[:-1]], strict=True)
    return _Pattern([w for w, before in pairs if not w == before == _ANY])
