"""The formats of one app, by content type."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

from ..errors import RegistrationError
from ..settings import JSON
from ..settings import MAX_ITEMS
from ..text import quote
from .base import Decoder
from .base import Format
from .json import Json
from .msgpack import MsgPack
from .protobuf import Protobuf
from .text import Bytes
from .text import Text

#: A consumer's decoders by content type. A decoder's first content type is its main
#: one; further types are aliases, and ``None`` or ``""`` for a message without one.
Decoders = Mapping[str | None, Decoder]

_BYTES = Bytes()


class Formats:
    """The formats of one app: the built-in ones, and those that it registers.

    :param registered: Formats of the app's own, which precede the built-in formats.
    :param schemas: The schemas of the app's consumers.
    :param max_items: Limit for the values and keys of a body in a built-in format.
    """

    def __init__(
        self,
        registered: Iterable[Format] = (),
        schemas: Sequence[t.Any] = (),
        max_items: int = MAX_ITEMS,
    ) -> None:
        bounded = (Json(max_items), MsgPack(max_items), Protobuf(max_items=max_items))
        built_in = (*bounded, Text(), _BYTES)
        self._formats = [
            body_format.knowing(schemas) for body_format in (*registered, *built_in)
        ]
        # Every published body is offered to these, so formats without 'claims' are left
        # out.
        self._claiming = [f for f in self._formats if _may_claim(f)]
        self._formats_by_type: dict[str, Format] = {}
        for body_format in self._formats:
            for name in body_format.content_types:
                self._formats_by_type.setdefault(name, body_format)

    def find(self, content_type: str) -> Format | None:
        """Return the format of a content type; ``None`` for an unknown type."""
        if content_type in self._formats_by_type:
            return self._formats_by_type[content_type]
        name = normalize_content_type(content_type) or JSON
        return self._formats_by_type.get(name) or self._formats_by_type.get(
            _find_suffix(name)
        )

    def type_of(self, body: t.Any) -> str:
        """Return the content type for a body, if ``publish`` was given none."""
        for claiming_format in self._claiming:
            if claiming_format.claims(body):
                return claiming_format.content_types[0]
        return JSON

    def decoders(
        self, accept: Iterable[str] | None = None, schema: t.Any = None
    ) -> Decoders:
        """Create the functions that decode bodies for one consumer, by content type.

        :param accept: The content types that the consumer accepts; by default all known
            types. Bodies of an accepted but unknown type are given as bytes.
        :param schema: The consumer's schema.
        """
        decoders: dict[str | None, Decoder] = {}
        for name in (
            self._formats_by_type
            if accept is None
            else map(normalize_content_type, accept)
        ):
            if name not in decoders:
                body_format = self.find(name) or _BYTES
                names = (
                    self._names(body_format)
                    if name in self._formats_by_type
                    else [name]
                )
                decoders |= dict.fromkeys(names, body_format.decoder(schema))
        if JSON in decoders:
            decoders[""] = decoders[None] = decoders[JSON]
        return decoders

    def _names(self, format: Format) -> list[str]:
        return [
            name
            for name, known_format in self._formats_by_type.items()
            if known_format is format
        ]


def check_format(given: t.Any, others: Iterable[Format]) -> None:
    """Refuse a value that is not a format, or one with a content type in use.

    :raises RegistrationError: with what to do instead.
    """
    if not isinstance(given, Format):
        raise RegistrationError(
            f"'register_format' takes an instance of a subclass of 'Format', not"
            f" {quote(given)}."
        )
    names = given.content_types
    if not names or isinstance(names, str):
        raise RegistrationError(
            f"'{type(given).__name__}.content_types' must be a list of content types,"
            f" not {quote(names)}."
        )
    for name in names:
        if (
            not isinstance(name, str)
            or name != normalize_content_type(name)
            or not name
        ):
            raise RegistrationError(
                f"The content type {quote(name)} of '{type(given).__name__}' must be a"
                " text in lower case and without parameters, such as"
                " 'application/avro'."
            )
        for other in others:
            if name in other.content_types:
                raise RegistrationError(
                    f"'{type(given).__name__}' and '{type(other).__name__}' are both"
                    f" registered for the content type '{name}'; leave one of them out."
                )


def find_decoder(decoders: Decoders, content_type: str | None) -> Decoder | None:
    """Return the decoder for a content type, however the type is spelled."""
    name = normalize_content_type(content_type or "")
    return decoders.get(name) or decoders.get(_find_suffix(name))


def list_content_types(decoders: Decoders) -> list[str]:
    """Return one content type for each decoder, without other spellings."""
    return sorted({_find_name(decoders, decoder) for decoder in decoders.values()})


def find_content_type(decoders: Decoders, decoder: Decoder) -> str:
    """Return the main content type that a decoder belongs to."""
    return _find_name(decoders, decoder)


def normalize_content_type(content_type: str) -> str:
    """Return a content type in lower case, without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def _find_name(decoders: Decoders, decoder: Decoder) -> str:
    return (
        next(name for name, candidate in decoders.items() if candidate is decoder) or ""
    )


def _may_claim(format: Format) -> bool:
    return type(format).claims is not Format.claims


def _find_suffix(name: str) -> str:
    """Return the suffix of a content type, such as ``+json``."""
    return "+" + name.rpartition("+")[2]


#: The formats of an app that registers none.
BUILT_IN = Formats()
