"""Topic patterns, the same on every broker, as AMQP 0-9-1 defines them.

kombu's own matcher for virtual transports is not used: it does not let ``#`` stand for
no word at all (``order.#`` must match ``order``).
"""

from __future__ import annotations

import re
from functools import lru_cache


def matches(pattern: str, routing_key: str) -> bool:
    """Whether a binding's pattern takes a routing key.

    ``*`` stands for one word, ``#`` for any number of words, none included; words stand
    between dots.
    """
    return _compiled(pattern).fullmatch("." + routing_key) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    words = pattern.split(".")
    # Neighbouring "#" mean what one means, and would make the search exponential.
    kept = [w for i, w in enumerate(words) if w != "#" or i == 0 or words[i - 1] != "#"]
    return re.compile("".join(map(_word, kept)), re.DOTALL)


def _word(word: str) -> str:
    if word == "#":
        return r"(?:\.[^.]*)*"
    if word == "*":
        return r"\.[^.]*"
    return re.escape("." + word)
