"""Text from outside cannot forge a log line or a terminal's sequences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_qconsume.text import escape
from flask_qconsume.text import quote
from flask_qconsume.text import shorten
from flask_qconsume.text import stringify


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("zwölf €", "zwölf €"),
        ("two\nlines", r"two\nlines"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\x00b\x7f\x9b", r"a\x00b\x7f\x9b"),
        ("\udc80", r"\udc80"),
        ("left\u202eright", r"left\u202eright"),
        ("line\u2028end", r"line\u2028end"),
        (None, "None"),
        (b"\n", r"b'\n'"),
        (Mute(), "(Mute, without a readable text)"),
    ],
)
def test_control_characters_are_escaped(value: object, shown: str) -> None:
    assert escape(value) == shown


@given(st.text(), st.integers(min_value=8, max_value=600))
def test_any_text_becomes_one_short_printable_line(text: str, length: int) -> None:
    shown = escape(text, length)
    assert shown.isprintable()
    assert len(shown) <= length * 10  # An escape has ten characters at the most.
    shown.encode()


@given(st.text(min_size=1), st.integers(min_value=8, max_value=100))
def test_a_long_text_keeps_its_two_ends(text: str, length: int) -> None:
    short = shorten(text, length)
    assert len(short) <= max(length, 0)
    assert short[0] == text[0]
    assert short[-1] == text[-1]
    assert (short == text) == (len(text) <= length)


def test_a_value_that_cannot_be_written_is_told_by_its_type() -> None:
    for value in (10**5_000, [10**5_000]):
        name = type(value).__name__
        assert quote(value) == f"'({name}, without a readable text)'"


def test_what_an_error_says_may_itself_raise() -> None:
    assert stringify(ValueError("no")) == "no"
    assert stringify(Mute()) == "(Mute, without a readable text)"


@pytest.mark.parametrize(
    ("value", "shown"), [("many", "'many'"), (5, "'5'"), (["a"], "'['a']'")]
)
def test_a_value_is_shown_in_single_quotes(value: object, shown: str) -> None:
    assert quote(value) == shown
