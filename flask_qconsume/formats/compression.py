"""Compressed bodies, which are decompressed up to a limited size.

A kilobyte may become a megabyte, so every decompression has a limit. A body must be one
stream: a body of many short streams would take long, since each stream takes a fixed
time.
"""

from __future__ import annotations

import typing as t
import zlib
from collections.abc import Callable
from collections.abc import Mapping

from ..errors import MessageTooLarge

#: Functions that create a decompressor for a body, by the name of the compression.
Decompressors = Mapping[str, Callable[[bytes], "Decompressor"]]

#: Limit for the memory of an LZMA decompressor; ``xz -9`` needs 65 MiB.
_MAX_LZMA_BYTES = 80 * 1024 * 1024


class Decompressor(t.Protocol):
    """The interface that the standard library's decompressors have in common."""

    def decompress(self, data: bytes, max_length: int) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


def decompress(
    raw: bytes, create: Callable[[bytes], Decompressor], max_bytes: int
) -> bytes:
    """Decompress a body, up to a limited size.

    :param create: Function that creates the decompressor for the body.
    :raises MessageTooLarge: if the result has more than ``max_bytes``.
    :raises Exception: of any kind, if the body is damaged.
    """
    stream = create(raw)
    decompressed = stream.decompress(raw, max_bytes + 1)
    if len(decompressed) > max_bytes:
        raise MessageTooLarge(
            "the body grows to more than 'QCONSUME_MAX_MESSAGE_SIZE' ="
            f" {max_bytes} bytes"
        )
    if not stream.eof:
        raise ValueError("it is cut off")
    if stream.unused_data:
        raise ValueError(f"{len(stream.unused_data)} bytes follow its end")
    return decompressed


def _create_zlib(raw: bytes) -> Decompressor:
    """Create a decompressor for a body with a header of gzip or of zlib."""
    return zlib.decompressobj(zlib.MAX_WBITS + 32)


def _create_deflate(raw: bytes) -> Decompressor:
    """Create a decompressor for a body with zlib's header, or without a header."""
    has_header = int.from_bytes(raw[:2], "big") % 31 == 0 and raw[:1] in _ZLIB_BEGINS
    return zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)


#: First bytes of a zlib header: the method, and the window's size.
_ZLIB_BEGINS = [bytes([size << 4 | 8]) for size in range(8)]


def _create_bzip2(raw: bytes) -> Decompressor:
    import bz2

    return bz2.BZ2Decompressor()


def _create_lzma(raw: bytes) -> Decompressor:
    import lzma

    return lzma.LZMADecompressor(memlimit=_MAX_LZMA_BYTES)


#: Decompressors by the property ``content-encoding``, which has HTTP's names.
BY_ENCODING: Decompressors = {
    "gzip": _create_zlib,
    "x-gzip": _create_zlib,
    "deflate": _create_deflate,
}

#: Decompressors by kombu's header ``compression``; its "gzip" has zlib's header.
BY_HEADER: Decompressors = {
    **dict.fromkeys(
        ("application/x-gzip", "application/gzip", "gzip", "zlib"), _create_zlib
    ),
    **dict.fromkeys(("application/x-bz2", "bzip2", "bzip"), _create_bzip2),
    **dict.fromkeys(("application/x-lzma", "lzma", "xz"), _create_lzma),
}
