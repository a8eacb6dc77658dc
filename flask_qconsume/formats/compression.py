"""Compressed bodies, decompressed up to a size.

A kilobyte may become a megabyte: nothing is decompressed without a bound. Only one
stream is: of many short ones, each costs the same whatever it holds.
"""

from __future__ import annotations

import typing as t
import zlib
from collections.abc import Callable
from collections.abc import Mapping

from ..errors import MessageTooLarge

#: What makes a decompressor for a body, by the names of a coding.
Decompressors = Mapping[str, Callable[[bytes], "Decompressor"]]

#: Bytes that an LZMA stream may have kept in memory; ``xz -9`` needs 65 MiB.
_LZMA_MEMORY = 80 * 1024 * 1024


class Decompressor(t.Protocol):
    """The decompressors of the standard library."""

    def decompress(self, data: bytes, max_length: int) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


def decompress(
    raw: bytes, decompressor: Callable[[bytes], Decompressor], most: int
) -> bytes:
    """A body of up to ``most`` bytes.

    :raises MessageTooLarge: if it has more.
    :raises Exception: of any kind, if it is damaged.
    """
    stream = decompressor(raw)
    found = stream.decompress(raw, most + 1)
    if len(found) > most:
        raise MessageTooLarge(
            f"the body grows to more than 'QCONSUME_MAX_MESSAGE_SIZE' = {most} bytes"
        )
    if not stream.eof:
        raise ValueError("it is cut off")
    if stream.unused_data:
        raise ValueError(f"{len(stream.unused_data)} bytes are behind its end")
    return found


def _zlib(raw: bytes) -> Decompressor:
    """With a header of gzip or of zlib, whichever there is."""
    return zlib.decompressobj(zlib.MAX_WBITS + 32)


def _deflate(raw: bytes) -> Decompressor:
    """With zlib's header, as HTTP says, or without one, as some write it."""
    has_header = int.from_bytes(raw[:2], "big") % 31 == 0 and raw[:1] in _DEFLATE
    return zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)


#: The first bytes of a zlib header: the method, and the window's size.
_DEFLATE = [bytes([size << 4 | 8]) for size in range(8)]


def _bzip2(raw: bytes) -> Decompressor:
    import bz2

    return bz2.BZ2Decompressor()


def _lzma(raw: bytes) -> Decompressor:
    import lzma

    return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)


#: By the property ``content-encoding``, as HTTP has it.
BY_ENCODING: Decompressors = {
    "gzip": _zlib,
    "x-gzip": _zlib,
    "deflate": _deflate,
}

#: By the header ``compression``, as kombu writes it; its "gzip" has zlib's header.
BY_HEADER: Decompressors = {
    **dict.fromkeys(("application/x-gzip", "application/gzip", "gzip", "zlib"), _zlib),
    **dict.fromkeys(("application/x-bz2", "bzip2", "bzip"), _bzip2),
    **dict.fromkeys(("application/x-lzma", "lzma", "xz"), _lzma),
}
