"""Compressed bodies are decompressed, up to a size."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tracemalloc
import typing as t
import zlib
from collections.abc import Callable

import pytest
from kombu.compression import compress
from kombu.compression import encoders

from flask_qconsume import Message
from flask_qconsume import MessageTooLarge
from flask_qconsume import UndecodableMessage
from flask_qconsume.formats.table import BUILT_IN
from flask_qconsume.handling.payload import decode
from flask_qconsume.settings import BYTES
from flask_qconsume.settings import JSON
from flask_qconsume.settings import MSGPACK
from flask_qconsume.settings import TEXT
from tests.fuzz.cost import bounded

BODY = {"name": "zwölf", "rows": [[0, 1]] * 100}
RAW = json.dumps(BODY, ensure_ascii=False).encode()
MB = 1024 * 1024


def decoded(
    raw: bytes,
    encoding: str | None = None,
    header: t.Any = None,
    *,
    kind: str = JSON,
    most: int = MB,
) -> t.Any:
    headers = {} if header is None else {"compression": header}
    message = Message(
        raw, "q", headers=headers, content_type=kind, content_encoding=encoding
    )
    return decode(message, BUILT_IN.decoders(), most)


def raw_deflate(raw: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(raw) + compressor.flush()


WAYS: dict[str, tuple[Callable[[bytes], bytes], str | None, str | None]] = {
    "gzip": (gzip.compress, "gzip", None),
    "x-gzip": (gzip.compress, "x-gzip", None),
    "zlib called gzip": (zlib.compress, "gzip", None),
    "deflate": (zlib.compress, "deflate", None),
    "deflate without a header": (raw_deflate, "deflate", None),
    "kombu's gzip": (zlib.compress, "utf-8", "application/x-gzip"),
    "a real gzip in its place": (gzip.compress, "utf-8", "application/x-gzip"),
    "bzip2": (bz2.compress, "utf-8", "application/x-bz2"),
    "lzma": (lzma.compress, "binary", "application/x-lzma"),
    "both": (lambda raw: bz2.compress(gzip.compress(raw)), "gzip", "bzip2"),
}
each_way = pytest.mark.parametrize(
    ("pack", "encoding", "header"), WAYS.values(), ids=WAYS
)


@each_way
def test_a_compressed_body_is_what_it_was(
    pack: Callable[[bytes], bytes], encoding: str | None, header: str | None
) -> None:
    assert decoded(pack(RAW), encoding, header) == BODY


@pytest.mark.parametrize(
    "name",
    sorted(
        {*encoders()}
        & {"application/x-gzip", "application/x-bz2", "application/x-lzma"}
    ),
)
def test_what_kombu_compresses_is_what_it_was(name: str) -> None:
    raw, header = compress(RAW, name)

    assert decoded(raw, "utf-8", header) == BODY


@pytest.mark.parametrize(
    ("kind", "body"),
    [(TEXT, "zwölf"), (BYTES, "zwölf".encode()), (f"{TEXT}; charset=utf-8", "zwölf")],
)
def test_every_format_may_be_compressed(kind: str, body: t.Any) -> None:
    assert decoded(gzip.compress("zwölf".encode()), "gzip", kind=kind) == body


def test_the_character_set_in_the_content_type_still_counts() -> None:
    raw = gzip.compress("zwölf".encode("latin-1"))

    assert decoded(raw, "gzip", kind="text/plain; charset=latin-1") == "zwölf"


@pytest.mark.deadline(60)
@each_way
def test_a_bomb_is_refused_before_it_takes_memory(
    pack: Callable[[bytes], bytes], encoding: str | None, header: str | None
) -> None:
    bomb = pack(b"\0" * 100 * MB)
    tracemalloc.start()
    try:
        with pytest.raises(MessageTooLarge, match="grows to more than 'QCONSUME_MAX_M"):
            bounded(lambda: decoded(bomb, encoding, header))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * MB


def test_a_body_may_grow_to_the_largest_size_and_no_byte_more() -> None:
    raw = gzip.compress(b"x" * 1_000)

    assert decoded(raw, "gzip", kind=BYTES, most=1_000) == b"x" * 1_000
    with pytest.raises(MessageTooLarge):
        decoded(raw, "gzip", kind=BYTES, most=999)


@each_way
def test_a_damaged_body_is_undecodable(
    pack: Callable[[bytes], bytes], encoding: str | None, header: str | None
) -> None:
    raw = pack(RAW)
    for damaged in (raw[:-1], raw + b"more", b"", b"{}", RAW):
        with pytest.raises(UndecodableMessage) as caught:
            decoded(damaged, encoding, header)
        assert "not compressed by" in caught.value.reason


def test_many_streams_in_a_row_take_no_time() -> None:
    with pytest.raises(UndecodableMessage, match="bytes follow its end"):
        bounded(lambda: decoded(gzip.compress(b"") * 40_000, "gzip", most=16 * MB))


def test_a_window_of_gigabytes_is_refused() -> None:
    raw = lzma.compress(RAW, format=lzma.FORMAT_ALONE)
    gigabyte = (1 << 30).to_bytes(4, "little")
    with pytest.raises(UndecodableMessage, match="[Mm]emory"):
        decoded(raw[:1] + gigabyte + raw[5:], None, "application/x-lzma")


@pytest.mark.parametrize("name", ["application/zstd", "x\n", 5, ["gzip"], {"a": 1}])
def test_another_compression_is_told_by_its_name(name: t.Any) -> None:
    with pytest.raises(UndecodableMessage, match="which is not supported") as caught:
        decoded(RAW, None, name)
    assert caught.value.reason.isprintable()


@pytest.mark.parametrize("name", ["br", "zstd", "compress"])
def test_so_is_another_encoding(name: str) -> None:
    with pytest.raises(UndecodableMessage, match=f"'{name}' is not supported"):
        decoded(RAW, name)


def test_a_compressed_msgpack_is_bounded_twice() -> None:
    many = b"\xdd\x00\x20\x00\x00" + b"\x80" * 0x200000

    with pytest.raises(UndecodableMessage, match="'QCONSUME_MAX_ITEMS'"):
        decoded(gzip.compress(many), "gzip", kind=MSGPACK, most=4 * MB)
