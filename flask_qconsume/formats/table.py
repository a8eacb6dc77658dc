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

#: A consumer's decoders by content type, in every spelling that is worth a look-up. The
#: first of one decoder is its proper name.
Decoders = Mapping[str | None, Decoder]

_BYTES = Bytes()


class Formats:
    """The formats of one app, by content type.

    :param registered: Those of its own; they come before the ones that every app has.
    :param schemas: What its consumers declare.
    :param max_items: How many values and keys a body may hold, in those that every app
        has.
    """

    def __init__(
        self,
        registered: Iterable[Format] = (),
        schemas: Sequence[t.Any] = (),
        max_items: int = MAX_ITEMS,
    ) -> None:
        bounded = (Json(max_items), MsgPack(max_items), Protobuf(max_items=max_items))
        built_in = (*bounded, Text(), _BYTES)
        self._formats = [each.knowing(schemas) for each in (*registered, *built_in)]
        # Most claim nothing, and whatever is published is held out to those that may.
        self._claiming = [f for f in self._formats if _may_claim(f)]
        self._by_type: dict[str, Format] = {}
        for each in self._formats:
            for name in each.content_types:
                self._by_type.setdefault(name, each)

    def find(self, content_type: str) -> Format | None:
        """The format that bodies of a content type are in, if one is known."""
        if content_type in self._by_type:
            return self._by_type[content_type]
        name = normalize_content_type(content_type) or JSON
        return self._by_type.get(name) or self._by_type.get(_suffix(name))

    def type_of(self, body: t.Any) -> str:
        """The content type of a body that is published without one."""
        for each in self._claiming:
            if each.claims(body):
                return each.content_types[0]
        return JSON

    def decoders(
        self, accept: Iterable[str] | None = None, schema: t.Any = None
    ) -> Decoders:
        """The decoders of one consumer.

        :param accept: The content types that it takes; all that are known unless
            given. The body of one that is not known is given as bytes.
        :param schema: What it declares.
        """
        found: dict[str | None, Decoder] = {}
        for name in (
            self._by_type if accept is None else map(normalize_content_type, accept)
        ):
            if name not in found:
                each = self.find(name) or _BYTES
                names = self._names(each) if name in self._by_type else [name]
                found |= dict.fromkeys(names, each.decoder(schema))
        if JSON in found:
            found[""] = found[None] = found[JSON]
        return found

    def _names(self, format: Format) -> list[str]:
        return [name for name, each in self._by_type.items() if each is format]


def check_format(given: t.Any, others: Iterable[Format]) -> None:
    """Refuse what is no format, or takes a content type of another.

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
    """The decoder for a content type in any spelling, if there is one."""
    name = normalize_content_type(content_type or "")
    return decoders.get(name) or decoders.get(_suffix(name))


def list_content_types(decoders: Decoders) -> list[str]:
    """The proper names of what there are decoders for, one for each."""
    return sorted({_first(decoders, decoder) for decoder in decoders.values()})


def find_content_type(decoders: Decoders, decoder: Decoder) -> str:
    """The proper name of what a decoder decodes."""
    return _first(decoders, decoder)


def normalize_content_type(content_type: str) -> str:
    """A content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def _first(decoders: Decoders, decoder: Decoder) -> str:
    return next(name for name, found in decoders.items() if found is decoder) or ""


def _may_claim(format: Format) -> bool:
    return type(format).claims is not Format.claims


def _suffix(name: str) -> str:
    """``+json`` of ``application/cloudevents+json``."""
    return "+" + name.rpartition("+")[2]


#: What every app has.
BUILT_IN = Formats()
