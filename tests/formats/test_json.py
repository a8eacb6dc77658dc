"""JSON is decoded to the same values by msgspec and by the standard library."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import typing as t

import pytest
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st

from flask_qconsume import Message
from flask_qconsume.formats import json as ours
from flask_qconsume.formats.json import Json

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
#: The parts of JSON, in any order.
PIECES = st.sampled_from(
    ["[", "]", "{", "}", ",", ":", '"', "\\", "\\ud800", "a", "é", "\x00", " ", "\n"]
    + ["-", "0", "1", "9" * 30, ".", "e", "E", "+", "true", "null", "NaN", "Infinity"]
)


def decoded(raw: bytes, *, slowly: bool) -> t.Any:
    """The decoded value, or the error's class."""
    read = Json()._decode if slowly else Json().decode
    try:
        return read(Message(raw, "q"))
    except Exception as error:
        return type(error), str(error)


def same(one: t.Any, other: t.Any) -> bool:
    """Return whether values and types are equal; 0.0 and -0.0 differ, too."""
    return repr(one) == repr(other)


def test_msgspec_is_there_to_be_compared() -> None:
    assert ours._decode_fast is not None


@given(VALUES)
@example(10**400)
@example(2**64)
@example(-(2**63) - 1)
@example(-0.0)
@example(5e-324)
def test_what_is_json_is_the_same(value: t.Any) -> None:
    raw = json.dumps(value).encode()

    assert same(decoded(raw, slowly=False), decoded(raw, slowly=True))
    assert same(decoded(raw, slowly=False), value)


@given(st.lists(PIECES, max_size=12).map("".join))
@example('{"a": 1, "a": 2}')
@example("1e400")
@example("[1,]")
@example(' "\\ud800" ')
@example("\ufeff1")
@example("1" * 5_000)
def test_what_may_be_json_is_the_same_or_refused_with_the_same_words(text: str) -> None:
    raw = text.encode()

    assert same(decoded(raw, slowly=False), decoded(raw, slowly=True))


@given(st.binary(max_size=20))
def test_so_are_any_bytes(raw: bytes) -> None:
    assert same(decoded(raw, slowly=False), decoded(raw, slowly=True))


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_so_is_what_is_too_deep(opening: str) -> None:
    kind, _ = decoded(opening.encode() * 100_000, slowly=False)

    assert kind is RecursionError


def test_another_character_set_is_left_to_the_standard_library() -> None:
    message = Message('"é"'.encode("latin-1"), "q", content_encoding="latin-1")

    assert Json().decode(message) == "é"


def test_no_number_is_infinite() -> None:
    assert math.isfinite(decoded(b"1e308", slowly=False))
    assert decoded(b"1e309", slowly=False)[0] is ValueError


@pytest.mark.process
def test_it_works_without_msgspec() -> None:
    code = (
        "import sys\n"
        "sys.modules['msgspec'] = sys.modules['msgspec.json'] = None\n"
        "from flask_qconsume import Message\n"
        "from flask_qconsume.formats import json\n"
        "assert json._decode_fast is None\n"
        "print(json.Json().decode(Message(b'[1]', 'q')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[1]\n"
