"""Text in any character set; and bytes, which stay as they are."""

from __future__ import annotations

import codecs
import encodings
import pkgutil
import typing as t
from encodings.aliases import aliases
from functools import lru_cache

from ..errors import UndecodableMessage
from ..message import Message
from ..settings import BYTES
from ..settings import JSON
from ..settings import TEXT
from ..text import escape
from .base import Format

#: Encodings of kombu's that do not name a character set; UTF-8 is the default anyway.
_WITHOUT_CHARSET = ("", "binary", "ascii-8bit", "utf-8")

#: The byte-order mark, decoded.
_BYTE_ORDER_MARK = "\ufeff"

#: The encodings and content types of nearly all messages, for a fast check.
_UTF8_ENCODINGS = frozenset((None, "", "utf-8", "UTF-8"))
_UTF8_CONTENT_TYPES = frozenset(
    (None, "", JSON, TEXT, f"{JSON}; charset=utf-8", f"{TEXT}; charset=utf-8")
)

#: Characters of a character set's name; Python's names have up to 21.
_MAX_CHARSET_LENGTH = 40

#: Python's codecs that are refused: they are not character sets. The first two take
#: quadratic time: 16 MB would block the process for hours.
_REFUSED_CODECS = (
    "punycode",
    "idna",
    "unicode-escape",
    "raw-unicode-escape",
    "undefined",
)


class Text(Format):
    """The format of ``str``: text in the character set that the message names."""

    content_types = (TEXT,)

    def decode(self, message: Message) -> str:
        return decode_text(message)

    def encode(self, body: t.Any, routing_key: str) -> bytes:
        if not isinstance(body, str):
            raise TypeError(
                f"A '{TEXT}' body must be a str, not '{type(body).__name__}'."
            )
        # A text that begins with this character gets it twice, since one is removed.
        mark = _BYTE_ORDER_MARK if body.startswith(_BYTE_ORDER_MARK) else ""
        return (mark + body).encode()


class Bytes(Format):
    """The format of ``bytes``, and of content types for which there is no format."""

    content_types = (BYTES, "application/data")

    def decode(self, message: Message) -> bytes:
        return message.raw

    def encode(self, body: t.Any, routing_key: str) -> bytes:
        raise ValueError(f"It is for bytes, not for '{type(body).__name__}'.")


def is_utf8(message: Message) -> bool:
    """Return whether a message's content type says that the body is UTF-8.

    If not, :func:`decode_text` finds the character set.
    """
    return (
        message.content_encoding in _UTF8_ENCODINGS
        and message.content_type in _UTF8_CONTENT_TYPES
    )


def decode_text(message: Message) -> str:
    """Decode a body as text, in the character set that the message names.

    A byte-order mark before the text, as .NET writes it, is removed.

    :raises UndecodableMessage: for an unknown character set.
    """
    if is_utf8(message):
        return message.raw.decode().removeprefix(_BYTE_ORDER_MARK)
    charset = _find_charset(message)
    try:
        return _decode(message.raw, charset).removeprefix(_BYTE_ORDER_MARK)
    except LookupError:
        raise UndecodableMessage(
            f"the character set '{escape(charset)}' is not known"
        ) from None


def check_charset(raw: bytes, content_type: str) -> None:
    """Refuse to publish text, which is UTF-8, with a different character set.

    :param raw: A text, encoded as UTF-8.
    :raises ValueError: with what to do instead.
    """
    charset = _read_charset(content_type)
    try:
        if not charset or _decode(raw, charset) == raw.decode():
            return
    except (LookupError, ValueError):
        pass
    raise ValueError(
        f"it would be UTF-8, not '{escape(charset)}'; leave the character set out,"
        " or publish bytes"
    )


def _decode(raw: bytes, charset: str) -> str:
    # Python decodes an empty body without looking the name up, so check it first.
    if not _is_known(charset) or codecs.lookup(charset).name in _REFUSED_CODECS:
        raise LookupError(charset)
    return raw.decode(charset)


def _is_known(charset: str) -> bool:
    """Return whether Python knows a character set; do not cache unknown names."""
    if len(charset) > _MAX_CHARSET_LENGTH or not charset.isascii():
        return False
    name = encodings.normalize_encoding(charset).lower().replace(".", "_")
    return name in _list_codecs()


@lru_cache(1)
def _list_codecs() -> frozenset[str]:
    modules = (module.name for module in pkgutil.iter_modules(encodings.__path__))
    return frozenset((*modules, *aliases, *aliases.values()))


def _read_charset(content_type: str) -> str:
    _, _, charset = content_type.lower().partition("charset=")
    return charset.partition(";")[0].strip(' "')


def _find_charset(message: Message) -> str:
    given = (message.content_encoding or "").strip().lower()
    in_type = _read_charset(message.content_type or "")
    charset = given if given not in _WITHOUT_CHARSET else in_type
    if charset in ("gzip", "deflate", "br", "zstd", "compress"):
        raise UndecodableMessage(f"the encoding '{charset}' is not supported")
    return charset or "utf-8"
