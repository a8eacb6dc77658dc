"""Limits: no body takes more time or memory than its length and the limits allow."""

from __future__ import annotations

import json
import tracemalloc
import typing as t

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_qconsume import Message
from flask_qconsume import UndecodableMessage
from flask_qconsume.formats import bounds
from flask_qconsume.formats.msgpack import MsgPack
from flask_qconsume.formats.table import Formats
from flask_qconsume.handling.payload import decode
from flask_qconsume.handling.payload import encode
from flask_qconsume.settings import JSON
from flask_qconsume.settings import MSGPACK
from tests.fuzz.cost import bounded

from .flooding import find_colliding
from .flooding import packed

MB = 1024 * 1024
KINDS = pytest.mark.parametrize("kind", [JSON, MSGPACK])


def decoded(
    raw: bytes,
    kind: str = JSON,
    max_items: int = 1_000_000,
    encoding: str | None = None,
) -> t.Any:
    message = Message(raw, "q", content_type=kind, content_encoding=encoding)
    return decode(message, Formats(max_items=max_items).decoders(), 16 * MB)


def written(body: t.Any, kind: str) -> bytes:
    return encode(body, kind)[0]


TOO_MANY = {
    "empty mappings": (b"[" + b"{}," * 5_000_000 + b"{}]", JSON),
    "empty lists": (b"[" + b"[]," * 5_000_000 + b"[]]", JSON),
    "numbers": (b"[" + b"0," * 8_000_000 + b"0]", JSON),
    "texts": (b"[" + b'"",' * 5_000_000 + b'""]', JSON),
    "keys": (b"{" + b'"":0,' * 3_000_000 + b'"":0}', JSON),
    "lists that never end": (b"[" * 16_000_000, JSON),
    "mappings in MessagePack": (b"\xdd\x00\xf0\x00\x00" + b"\x80" * 0xF00000, MSGPACK),
    "lists in MessagePack": (b"\xdd\x00\xf0\x00\x00" + b"\x90" * 0xF00000, MSGPACK),
    "mappings in lists": (b"\xdd\x00\x70\x00\x00" + b"\x91\x80" * 0x700000, MSGPACK),
    "pairs of nothing": (b"\xdf\x00\x70\x00\x00" + b"\xc0\xc0" * 0x700000, MSGPACK),
    "numbers in MessagePack": (b"\xdd\x00\xf0\x00\x00" + b"\x01" * 0xF00000, MSGPACK),
}


@pytest.mark.deadline(60)
@pytest.mark.parametrize(("raw", "kind"), TOO_MANY.values(), ids=TOO_MANY)
def test_a_body_of_too_many_items_is_refused_before_it_takes_memory(
    raw: bytes, kind: str
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UndecodableMessage, match="'QCONSUME_MAX_ITEMS'"):
            bounded(lambda: decoded(raw, kind), most=10)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(raw)


def items(value: t.Any) -> int:
    """Count values and keys; an empty list or mapping counts twice."""
    if isinstance(value, dict):
        return 1 + max(len(value) + sum(map(items, value.values())), 1)
    if isinstance(value, list):
        return 1 + max(sum(map(items, value)), 1)
    return 1


TEXTS = st.text() | st.sampled_from(['"', "\\", '\\"', ",", ":", "[{", "\\\\", "a,b"])
VALUES = st.recursive(
    st.none() | st.integers(0, 1_000) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


@given(VALUES)
def test_json_is_counted_as_what_it_holds(value: t.Any) -> None:
    raw = json.dumps(value).encode()

    bounds.check_json(raw, items(value))
    if len(raw) >= items(value) > 1:
        with pytest.raises(bounds.TooManyItems):
            bounds.check_json(raw, items(value) - 1)


@KINDS
@given(value=VALUES)
def test_as_many_items_as_are_allowed_are_decoded(kind: str, value: t.Any) -> None:
    assert decoded(written(value, kind), kind, items(value)) == value


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-le", "utf-8-sig"])
def test_other_character_sets_are_counted_too(encoding: str) -> None:
    # The bytes of commas occur in it, but as parts of other characters.
    text = "Ⱜ" * 200

    assert (
        decoded(
            json.dumps(text, ensure_ascii=False).encode(encoding), JSON, 10, encoding
        )
        == text
    )
    with pytest.raises(UndecodableMessage, match="more than 'QCONSUME_MAX_ITEMS' = 10"):
        decoded(json.dumps([0] * 20).encode(encoding), JSON, 10, encoding)


@pytest.mark.deadline(30)
def test_keys_that_collide_are_refused_in_time() -> None:
    raw = packed(find_colliding(5_400))

    with pytest.raises(UndecodableMessage, match="too many keys that are not texts"):
        bounded(lambda: decoded(raw, MSGPACK), most=0.5)


@pytest.mark.deadline(30)
def test_nor_do_they_take_long_in_many_mappings() -> None:
    raw = b"\xdd\x00\x00\x04\x00" + packed(find_colliding(1_300)) * 1_024

    with pytest.raises(UndecodableMessage, match="too many keys that are not texts"):
        bounded(lambda: decoded(raw, MSGPACK, 10_000_000), most=0.5)


def test_floats_may_collide_as_well() -> None:
    body = {n * 2.0**40: None for n in range(20_000)}

    with pytest.raises(UndecodableMessage, match="too many keys that are not texts"):
        decoded(msgpack.packb(body), MSGPACK)


@pytest.mark.parametrize(
    "body",
    [
        {number: "x" * 10 for number in range(3_000)},
        [{1: "a" * 30, 2: None, 3: 0.5, 4: b"x"}] * 20_000,
        {str(number): number for number in range(50_000)},
        {b"%d" % number: number for number in range(50_000)},
        {"blob": b"x" * 2_000_000},
    ],
    ids=["numbers", "records", "texts", "bytes", "a long one"],
)
def test_what_is_honest_is_decoded(body: t.Any) -> None:
    assert decoded(written(body, MSGPACK), MSGPACK) == body


def test_what_a_consumer_would_refuse_is_not_published() -> None:
    with pytest.raises(ValueError, match="too many keys that are not texts"):
        written(dict.fromkeys(range(10_000)), MSGPACK)


def nested(depth: int) -> t.Any:
    value: t.Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


@KINDS
def test_what_nests_as_deep_as_may_be_is_published_and_decoded(kind: str) -> None:
    value = nested(bounds.MAX_DEPTH)

    assert decoded(written(value, kind), kind) == value


@pytest.mark.parametrize(("kind", "depth"), [(JSON, 501), (MSGPACK, 1_030)])
def test_what_nests_deeper_is_not_published(kind: str, depth: int) -> None:
    with pytest.raises(ValueError, match="it nests deeper than|recursion limit"):
        written(nested(depth), kind)


def test_brackets_in_texts_and_beside_each_other_are_no_depth() -> None:
    for value in (["[" * 1_000], [[]] * 1_000, {"\\": '"[{' * 1_000}):
        assert decoded(written(value, JSON)) == value


@pytest.mark.deadline(30)
@pytest.mark.parametrize("size", [400_000, 16_000_000])
def test_lists_that_announce_more_than_there_is_take_no_time(size: int) -> None:
    head = b"\xdd" + size.to_bytes(4, "big")
    raw = head * 1_000 + b"\xc0" * (size - 5_000)

    with pytest.raises(UndecodableMessage):
        bounded(lambda: decoded(raw, MSGPACK), most=0.5)


def test_a_short_body_costs_no_scan() -> None:
    """A short body is within all limits, by its length alone."""
    assert MsgPack(4).decode(Message(b"\x93\x01\x02\x03", "q")) == [1, 2, 3]
    assert decoded(b"[,,]"[:1] + b"1]", JSON, 3) == [1]
