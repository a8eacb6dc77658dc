"""Topic patterns mean exactly what AMQP 0-9-1 says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_qconsume.broker.topic_patterns import matches
from tests.fuzz.cost import bounded
from tests.fuzz.cost import counted


def by_the_book(pattern: list[str], words: list[str]) -> bool:
    """Match by the definition, word by word: slow, and obviously right."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(by_the_book(pattern[1:], words[n:]) for n in range(len(words) + 1))
    if not words:
        return False
    return pattern[0] in ("*", words[0]) and by_the_book(pattern[1:], words[1:])


@pytest.mark.parametrize(
    ("pattern", "taken", "refused"),
    [
        ("order", ["order"], ["", "orders", "order.", "order.x", ".order", "Order"]),
        ("order.created", ["order.created"], ["order", "orderXcreated"]),
        ("*", ["order", ""], ["order.x", "."]),
        ("#", ["order", "", "a.b.c", ".", "..."], []),
        ("order.*", ["order.x", "order."], ["order", "order.x.y", "x.order.y"]),
        ("order.#", ["order", "order.x", "order.x.y", "order."], ["orders", "x.order"]),
        ("#.order", ["order", "x.order", "x.y.order"], ["order.x", "xorder"]),
        ("#.*", ["x", "x.y", ""], []),
        ("*.#", ["x", "x.y", ""], []),
        ("*.*", ["a.b", "."], ["a", "a.b.c"]),
        ("a.#.b", ["a.b", "a.x.b", "a.x.y.b"], ["a", "b", "ab", "a.bb", "aa.b"]),
        ("a.#.#.b", ["a.b", "a.x.b"], ["a", "a.b.c"]),
        ("#.#", ["", "a", "a.b"], []),
        ("a.*.#", ["a.b", "a.b.c"], ["a", "b.c"]),
        ("a*", ["a*"], ["ab", "a"]),
        ("a#", ["a#"], ["ab", "a"]),
        ("a.b?", ["a.b?"], ["a.b", "a.bc"]),
        ("[a]", ["[a]"], ["a"]),
        ("a\\.b", ["a\\.b"], ["a.b"]),
        ("zwölf.*", ["zwölf.x", "zwölf.\n"], ["zwolf.x"]),
        ("", [""], ["a", "."]),
    ],
)
def test_the_table(pattern: str, taken: list[str], refused: list[str]) -> None:
    assert [key for key in taken if not matches(pattern, key)] == []
    assert [key for key in refused if matches(pattern, key)] == []


words = st.sampled_from(["a", "b", "ab", "", "a\n", "*", "#"])


@given(st.lists(words, min_size=1, max_size=6), st.lists(words, min_size=1, max_size=6))
def test_it_says_what_the_definition_says(pattern: list[str], key: list[str]) -> None:
    # In a routing key, "*" and "#" are ordinary words.
    assert matches(".".join(pattern), ".".join(key)) == by_the_book(pattern, key)


@given(st.text(), st.text())
def test_any_text_is_a_pattern_and_a_key(pattern: str, key: str) -> None:
    found = matches(pattern, key)
    assert found == by_the_book(pattern.split("."), key.split("."))


LONG = [
    (".".join(["#"] * 120) + ".x", ".".join(["a"] * 120)),
    ("#.a.#.a.#.a.#.b", ".".join(["a"] * 120)),
    ("#.a.#.a.#.a.#.a.#.a.c", "a." * 100 + "b"),
    ("#.a.*." * 40 + "c", "a." * 120 + "b"),
    ("*.#." * 60 + "c", "." * 254),
]


@pytest.mark.deadline(20)
@pytest.mark.parametrize(("pattern", "key"), LONG)
def test_a_match_takes_some_steps_for_each_word(pattern: str, key: str) -> None:
    found, steps = bounded(lambda: counted(lambda: matches(pattern, key)))

    assert not found
    assert steps <= 100 + 10 * (pattern.count(".") + key.count("."))
