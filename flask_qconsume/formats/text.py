"""Texts and bytes as they are."""

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

#: kombu writes these as the "encoding" of bodies that have no character set.
_NO_CHARSET = ("", "binary", "ascii-8bit", "utf-8")

#: The byte-order mark, decoded.
_MARK = "\ufeff"

#: What nearly all messages say, told at a glance.
_UTF8 = frozenset((None, "", "utf-8", "UTF-8"))
_SAYS_NO_OTHER = frozenset(
    (None, "", JSON, TEXT, f"{JSON}; charset=utf-8", f"{TEXT}; charset=utf-8")
)

#: Characters of the longest name of a character set; Python's have up to 21.
_LONGEST = 40

#: Python's codecs that no message is written in. The first two take time that grows
#: with the square of the length: 16 MB would hold up the process for hours.
_NO_CHARSETS = ("punycode", "idna", "unicode-escape", "raw-unicode-escape", "undefined")


class Text(Format):
    """A ``str``, in the message's character set."""

    content_types = (TEXT,)

    def decode(self, message: Message) -> str:
        return decode_text(message)

    def encode(self, body: t.Any, routing_key: str) -> bytes:
        if not isinstance(body, str):
            raise TypeError(
                f"A '{TEXT}' body must be a str, not '{type(body).__name__}'."
            )
        # A text that begins with what looks like a mark keeps it behind a mark of ours.
        mark = _MARK if body.startswith(_MARK) else ""
        return (mark + body).encode()


class Bytes(Format):
    """The bytes, and whatever else has no format."""

    content_types = (BYTES, "application/data")

    def decode(self, message: Message) -> bytes:
        return message.raw

    def encode(self, body: t.Any, routing_key: str) -> bytes:
        raise ValueError(f"It is for bytes, not for '{type(body).__name__}'.")


def is_utf8(message: Message) -> bool:
    """Whether the body is in UTF-8, told at a glance; if not it may be all the same."""
    return message.content_encoding in _UTF8 and message.content_type in _SAYS_NO_OTHER


def decode_text(message: Message) -> str:
    """The body as a text, in the character set that the message says.

    Without the byte-order mark that .NET puts before texts.
    """
    if is_utf8(message):
        return message.raw.decode().removeprefix(_MARK)
    charset = _charset(message)
    try:
        return _decoded(message.raw, charset).removeprefix(_MARK)
    except LookupError:
        raise UndecodableMessage(
            f"the character set '{escape(charset)}' is not known"
        ) from None


def check_charset(raw: bytes, content_type: str) -> None:
    """Refuse a content type that says another character set than UTF-8 of a text.

    :raises ValueError: unless that makes no difference to this text.
    """
    charset = _charset_in(content_type)
    try:
        if not charset or _decoded(raw, charset) == raw.decode():
            return
    except (LookupError, ValueError):
        pass
    raise ValueError(
        f"it would be UTF-8, not '{escape(charset)}'; leave the character set out,"
        " or publish bytes"
    )


def _decoded(raw: bytes, charset: str) -> str:
    # Looked up apart, since an empty body would decode by any name.
    if not _is_known(charset) or codecs.lookup(charset).name in _NO_CHARSETS:
        raise LookupError(charset)
    return raw.decode(charset)


def _is_known(charset: str) -> bool:
    """Whether Python has such a codec: it remembers each name that it has not."""
    if len(charset) > _LONGEST or not charset.isascii():
        return False
    name = encodings.normalize_encoding(charset).lower().replace(".", "_")
    return name in _known()


@lru_cache(1)
def _known() -> frozenset[str]:
    modules = (each.name for each in pkgutil.iter_modules(encodings.__path__))
    return frozenset((*modules, *aliases, *aliases.values()))


def _charset_in(content_type: str) -> str:
    _, _, found = content_type.lower().partition("charset=")
    return found.partition(";")[0].strip(' "')


def _charset(message: Message) -> str:
    given = (message.content_encoding or "").strip().lower()
    in_type = _charset_in(message.content_type or "")
    charset = given if given not in _NO_CHARSET else in_type
    if charset in ("gzip", "deflate", "br", "zstd", "compress"):
        raise UndecodableMessage(f"the encoding '{charset}' is not supported")
    return charset or "utf-8"
