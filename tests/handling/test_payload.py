"""Bodies: hostile bytes become reasons, ours come back as they went."""

from __future__ import annotations

import datetime
import decimal
import encodings
import json
import pickle
import time
import typing as t
import uuid

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_qconsume import InvalidMessage
from flask_qconsume import Message
from flask_qconsume import MessageTooLarge
from flask_qconsume import UndecodableMessage
from flask_qconsume.formats.table import BUILT_IN
from flask_qconsume.handling.payload import UNREADABLE
from flask_qconsume.handling.payload import decode
from flask_qconsume.handling.payload import encode
from flask_qconsume.settings import BYTES
from flask_qconsume.settings import JSON
from flask_qconsume.settings import MSGPACK
from flask_qconsume.settings import TEXT

ALL = (JSON, MSGPACK, TEXT, BYTES)
LIMIT = 4 * 1024 * 1024


def decoded(
    raw: bytes,
    content_type: str | None = None,
    encoding: str | None = None,
    accept: t.Collection[str] = ALL,
    **headers: t.Any,
) -> t.Any:
    message = Message(
        raw, "q", headers=headers, content_type=content_type, content_encoding=encoding
    )
    return decode(message, BUILT_IN.decoders(accept), LIMIT)


def encoded(body: t.Any, content_type: str = JSON) -> bytes:
    return encode(body, content_type)[0]


class Bomb:
    def __reduce__(self) -> t.Any:
        return (pytest.fail, ("a pickle was loaded",))


HOSTILE: dict[str, tuple[t.Any, ...]] = {
    "not JSON": (b"hello", None, "is no application/json: Expecting value"),
    "half of it": (b'{"a": ', JSON, "is no application/json: Expecting value"),
    "more than it": (b"{} {}", JSON, "is no application/json: Extra data"),
    "empty": (b"", None, "is no application/json: it is empty"),
    "blank": (b" \n", None, "is no application/json: Expecting value"),
    "empty msgpack": (b"", MSGPACK, "is no application/msgpack: "),
    "invalid UTF-8": (b'"\xff"', JSON, "'utf-8' codec can't decode byte 0xff"),
    "invalid UTF-8 text": (b"\xc3\x28", TEXT, "is no text/plain: 'utf-8' codec"),
    "overlong UTF-8": (b'"\xc0\xaf"', JSON, "'utf-8' codec can't decode"),
    "UTF-8 surrogates": (b'"\xed\xa0\x80"', JSON, "'utf-8' codec can't decode"),
    "UTF-16 unsaid": ('{"a": 1}'.encode("utf-16"), JSON, "can't decode byte 0xff"),
    "two BOMs": (b"\xef\xbb\xbf" * 2 + b"{}", JSON, "Expecting value"),
    "a BOM alone": (b"\xef\xbb\xbf", JSON, "Expecting value"),
    "100,000 brackets": (b"[" * 100_000, JSON, "is no application/json: "),
    "100,000 objects": (b'{"a":' * 100_000, JSON, "is no application/json: "),
    "100,000 closed ones": (b"[" * 10**5 + b"]" * 10**5, JSON, "recursion"),
    "a million digits": (b"1" * 10**6, JSON, "Exceeds the limit (4300"),
    "too large a float": (b"[1e999]", JSON, "the number 1e999 is too large"),
    "a long such float": (b"-" + b"9" * 10**5 + b".0", JSON, "is too large"),
    "NaN": (b'{"a": NaN}', JSON, "'NaN' is not JSON"),
    "Infinity": (b"-Infinity", JSON, "'-Infinity' is not JSON"),
    "pickle": (
        pickle.dumps(Bomb()),
        "application/x-python-serialize",
        "type 'application/x-python-serialize' is not accepted",
    ),
    "YAML": (b"a: 1", "application/x-yaml", "is not accepted; there are: "),
    "a form": (b"a=1", "application/x-www-form-urlencoded", "is not accepted"),
    "a type that forges": (b"{}", "x\n\x1b[2J", r"type 'x\n\x1b[2j' is not accepted"),
    "a type of a megabyte": (b"{}", "x" * 10**6, " … "),
    "msgpack cut off": (b"\x92\x01", MSGPACK, "incomplete input"),
    "msgpack and more": (b"\x01\x02", MSGPACK, "is no application/msgpack: "),
    "msgpack never used": (b"\xc1", MSGPACK, "is no application/msgpack: "),
    "msgpack of a liar": (b"\xdd\xff\xff\xff\xff", MSGPACK, "exceeds max_array_len"),
    "msgpack of a fat liar": (b"\xdb\xff\xff\xff\xff", MSGPACK, "Unpack failed"),
    "msgpack nested": (b"\x91" * 100_000, MSGPACK, "is no application/msgpack: "),
    "msgpack list as key": (b"\x81\x90\x01", MSGPACK, "unhashable type: 'list'"),
    "msgpack map as key": (b"\x81\x80\x01", MSGPACK, "unhashable type: 'dict'"),
    "msgpack invalid UTF-8": (b"\xa1\xff", MSGPACK, "'utf-8' codec can't decode"),
    "msgpack far future": (
        msgpack.packb(msgpack.Timestamp(2**60)),
        MSGPACK,
        "too large to convert",
    ),
    "msgpack far past": (
        msgpack.packb(msgpack.Timestamp(-(2**60))),
        MSGPACK,
        "is no application/msgpack: ",
    ),
}


@pytest.mark.deadline(20)
@pytest.mark.parametrize(
    ("raw", "content_type", "reason"), HOSTILE.values(), ids=HOSTILE
)
def test_a_hostile_body_is_undecodable_with_a_reason(
    raw: bytes, content_type: str | None, reason: str
) -> None:
    with pytest.raises(UndecodableMessage) as caught:
        decoded(raw, content_type)
    assert reason in caught.value.reason
    assert caught.value.reason.isprintable()
    assert len(caught.value.reason) < 1000
    assert not caught.value.reason.endswith(": ")


@pytest.mark.parametrize(
    "name",
    [
        "gzip",
        "deflate",
        "br",
        "klingon",
        "a\0b",
        "\ud800",
        "../../etc",
        "idna",
        "punycode",
        "Raw_Unicode-Escape",
        "unicode_escape",
        "undefined",
        "x" * 10_000,
    ],
)
@pytest.mark.parametrize("raw", [b'"a"', b""])
def test_an_unknown_encoding_is_undecodable(name: str, raw: bytes) -> None:
    for given_as in ({"encoding": name}, {"content_type": f"{TEXT}; charset={name}"}):
        with pytest.raises(UndecodableMessage) as caught:
            decoded(raw, **{"content_type": TEXT, **given_as})
        assert caught.value.reason.isprintable()
        assert len(caught.value.reason) < 1000


def test_names_of_unknown_encodings_are_not_kept() -> None:
    """Python's codecs cache each unknown name of a message."""
    cache: dict[str, t.Any] = t.cast(t.Any, encodings)._cache
    before = set(cache)
    for number in range(100):
        with pytest.raises(UndecodableMessage, match="is not known"):
            decoded(b"a", f"{TEXT}; charset=klingon{number}")
    assert set(cache) == before


@pytest.mark.parametrize(
    "name", ["ISO-8859-1", "windows 1252", "ANSI_X3.4-1968", "utf_8_sig", "mac-roman"]
)
def test_names_of_encodings_are_known_in_any_spelling(name: str) -> None:
    assert decoded(b"a", f'{TEXT}; charset="{name}"') == "a"


@pytest.mark.parametrize("name", ["rot13", "hex", "zlib", "bz2", "uu"])
def test_pythons_transformations_are_no_encodings(name: str) -> None:
    with pytest.raises(UndecodableMessage, match=f"'{name}' is not known"):
        decoded(b"61", TEXT, name)


def test_no_encoding_takes_long() -> None:
    began = time.process_time()
    for name in ("punycode", "idna", "utf-7", "shift_jis", "utf-16", "unicode-escape"):
        try:
            decoded(b"a" * LIMIT, TEXT, name)
        except UndecodableMessage:
            continue
    assert time.process_time() - began < 5


def test_what_a_transport_could_not_read_is_undecodable() -> None:
    with pytest.raises(UndecodableMessage, match="unreadable: a header's name"):
        decoded(b"{}", **{UNREADABLE: "a header's name"})


def test_a_body_has_its_largest_size_and_no_byte_more() -> None:
    assert decoded(b"x" * LIMIT, BYTES) == b"x" * LIMIT
    with pytest.raises(MessageTooLarge) as caught:
        decoded(b"x" * (LIMIT + 1), "anything/at-all")
    assert caught.value.reason == (
        "the body has 4194305 bytes, more than 'QCONSUME_MAX_MESSAGE_SIZE' = 4194304"
    )


@pytest.mark.parametrize(
    ("raw", "content_type", "encoding", "body"),
    [
        (b'{"a": 1}', None, None, {"a": 1}),
        (b'{"a": 1}', "", "", {"a": 1}),
        (b'{"a": 1}', "APPLICATION/JSON ; charset=UTF-8", "utf-8", {"a": 1}),
        (b'"\xe9"', 'application/json; charset="latin-1"', None, "é"),
        (b'"\xe9"', "application/json; charset=latin-1; profile=x", None, "é"),
        (b'"\xe9"', "application/json; charset=latin-1", "binary", "é"),
        (b'"\xe9"', "application/json; charset=utf-8", "latin-1", "é"),
        (b"[]", "application/cloudevents+json", None, []),
        (b"[]", "text/json", "us-ascii", []),
        ('{"a": "€"}'.encode("utf-16"), JSON, "utf-16", {"a": "€"}),
        (b"\xef\xbb\xbf{}", JSON, "utf-8-sig", {}),
        (b"\xef\xbb\xbf{}", JSON, None, {}),
        (b"\xef\xbb\xbf{}", "application/json; charset=utf-8", None, {}),
        (
            "\ufeff{}".encode("utf-16-le"),
            "application/json; charset=utf-16le",
            None,
            {},
        ),
        ('{"a": "€"}'.encode("utf-32"), "text/json; charset=utf-32", None, {"a": "€"}),
        (b"\xef\xbb\xbfzw\xc3\xb6lf", TEXT, None, "zwölf"),
        ("\ufeffzwölf".encode("utf-16-be"), TEXT, "utf-16-be", "zwölf"),
        (b'"\\ud800"', JSON, None, "\ud800"),
        (b"0.1", JSON, None, 0.1),
        (b"1e308", JSON, None, 1e308),
        (b"12345678901234567890", JSON, None, 12345678901234567890),
        (b'{"a": 1, "a": 2}', JSON, None, {"a": 2}),
        (b"\x81\xa1a\x01", MSGPACK, None, {"a": 1}),
        (b"\x81\xa1a\x01", "application/x-msgpack", "binary", {"a": 1}),
        (b"\x81\x01\x02", "application/vnd.msgpack", None, {1: 2}),
        (b"\xd4\x05x", MSGPACK, None, msgpack.ExtType(5, b"x")),
        (
            msgpack.packb(msgpack.Timestamp(1)),
            MSGPACK,
            None,
            datetime.datetime.fromtimestamp(1, datetime.timezone.utc),
        ),
        ("zwölf".encode(), TEXT, None, "zwölf"),
        (b"zw\xf6lf", "text/plain; charset=iso-8859-1", None, "zwölf"),
        (b"", TEXT, None, ""),
        (b"\xff\x00", BYTES, None, b"\xff\x00"),
        (b"\xff\x00", "application/data", "binary", b"\xff\x00"),
        (b"", BYTES, None, b""),
    ],
)
def test_a_good_body_is_decoded_by_its_content_type(
    raw: bytes, content_type: str | None, encoding: str | None, body: t.Any
) -> None:
    assert decoded(raw, content_type, encoding) == body


def test_only_what_is_accepted_is_decoded() -> None:
    assert decoded(b"{}", None, accept=[JSON]) == {}
    with pytest.raises(UndecodableMessage, match="there are: application/json"):
        decoded(b"x", TEXT, accept=[JSON])
    with pytest.raises(UndecodableMessage, match="'application/json' is not accepted"):
        decoded(b"{}", JSON, accept=[MSGPACK])


def test_accepting_pickle_does_not_make_it_decoded() -> None:
    kind = "application/x-python-serialize"
    raw = pickle.dumps(Bomb())
    assert decoded(raw, kind, accept=[kind, JSON]) == raw


def test_an_accepted_type_that_is_not_known_is_given_as_bytes() -> None:
    assert decoded(b"\x89PNG", "image/png", accept=["image/png"]) == b"\x89PNG"


charsets = st.sampled_from(
    ["utf-8", "latin-1", "utf-16", "utf-7", "idna", "hex", "cp037", "gzip", "UTF_32"]
)
content_types = (
    st.none()
    | st.text()
    | st.sampled_from(ALL)
    | st.builds("{}; charset={}".format, st.sampled_from(ALL), st.text() | charsets)
)


@given(st.binary(), content_types, st.none() | st.text() | charsets)
def test_decoding_anything_raises_invalid_messages_only(
    raw: bytes, content_type: str | None, encoding: str | None
) -> None:
    try:
        decoded(raw, content_type, encoding)
    except InvalidMessage as error:
        assert error.reason.isprintable()


@given(st.binary())
def test_decoding_any_msgpack_raises_invalid_messages_only(raw: bytes) -> None:
    try:
        decoded(raw, MSGPACK)
    except InvalidMessage as error:
        assert error.reason


texts = st.text(st.characters(exclude_categories=["Cs"]))
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)


@given(plain, st.sampled_from([JSON, MSGPACK]))
def test_plain_values_come_back_as_they_went(body: t.Any, kind: str) -> None:
    assert decoded(encoded(body, kind), kind) == body


@given(texts)
def test_texts_come_back_as_they_went(body: str) -> None:
    assert decoded(encoded(body, TEXT), TEXT) == body


@given(st.binary())
def test_bytes_are_sent_as_they_are(body: bytes) -> None:
    for given_as in (body, bytearray(body), memoryview(body)):
        assert encoded(given_as, "image/png") == body


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_what_a_schema_dumps_is_written_as_texts(kind: str) -> None:
    id = uuid.uuid4()
    body = [
        decimal.Decimal("1.10"),
        id,
        datetime.date(2026, 1, 2),
        datetime.time(3, 4),
        datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.timezone.utc),
    ]
    assert decoded(encoded(body, kind), kind) == [
        "1.10",
        str(id),
        "2026-01-02",
        "03:04:00",
        "2026-01-02T03:04:00+00:00",
    ]


@pytest.mark.parametrize(
    ("body", "kind", "error"),
    [
        (object(), JSON, TypeError),
        ({1, 2}, JSON, TypeError),
        ({(1, 2): 3}, JSON, TypeError),
        ({"a": b"x"}, JSON, TypeError),
        (float("nan"), JSON, ValueError),
        ([float("inf")], JSON, ValueError),
        ("\ud800", JSON, ValueError),
        (object(), MSGPACK, TypeError),
        (2**64, MSGPACK, (OverflowError, TypeError)),
        (5, TEXT, TypeError),
        ("\ud800", TEXT, ValueError),
        ({}, "application/x-yaml", ValueError),
        ({}, BYTES, ValueError),
    ],
)
def test_what_cannot_be_written_is_refused(
    body: t.Any, kind: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        encoded(body, kind)


def test_json_is_written_small() -> None:
    assert (
        encoded({"name": "zwölf", "n": [1, 2]}) == '{"name":"zwölf","n":[1,2]}'.encode()
    )
    assert encoded(None) == b"null"
    assert json.loads(encoded({1: 2})) == {"1": 2}
