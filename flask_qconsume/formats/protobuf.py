"""Protocol Buffers, for message classes that the app imports.

``google.protobuf`` is imported only if the app has imported a message class.
"""

from __future__ import annotations

import sys
import typing as t
from collections.abc import Sequence
from functools import partial

from ..errors import InvalidMessage
from ..errors import RegistrationError
from ..errors import UndecodableMessage
from ..message import Message
from ..settings import MAX_ITEMS
from ..settings import PROTOBUF
from ..text import escape
from ..text import quote
from .base import Decoder
from .base import Format
from .protobuf_bounds import check_plain
from .protobuf_bounds import check_protobuf

#: Header with the type of a protobuf body: ``shop.Order``.
TYPE = "x-qconsume-type"


class Protobuf(Format):
    """Protocol Buffers. Built in; register another instance for further types.

    The type of a body is the consumer's ``schema=``, or the type that a header names:
    one of ``types``, or of the types of the app's consumers.

    :param types: Generated message classes.
    :param header: Name of the header that holds the type; published messages get it.
    :param max_items: Limit for the values of a body; for the built-in instance,
        ``QCONSUME_MAX_ITEMS`` is the limit.
    :raises RegistrationError: for a value that is not a message class.
    """

    content_types = (
        PROTOBUF,
        "application/x-protobuf",
        "application/vnd.google.protobuf",
    )

    def __init__(
        self, *types: t.Any, header: str = TYPE, max_items: int = MAX_ITEMS
    ) -> None:
        for message_class in types:
            if not is_protobuf_class(message_class):
                raise RegistrationError(
                    "'Protobuf' takes generated message classes, not"
                    f" {quote(message_class)}."
                )
        self._types = {_name(cls): cls for cls in types}
        self._header = header
        self._max_items = max_items

    def decode(self, message: Message) -> t.Any:
        name = self._read_type(message)
        if name is None:
            raise UndecodableMessage(
                f"nothing says which protobuf type it is: neither a header"
                f" '{self._header}' nor the consumer's 'schema='"
            )
        cls = self._types.get(name)
        if cls is None:
            known_types = ", ".join(sorted(self._types)) or "none"
            raise UndecodableMessage(
                f"the protobuf type '{escape(name)}' is not known here; there are:"
                f" {known_types}"
            )
        return _parse(cls, message.raw, self._max_items)

    def encode(self, body: t.Any, routing_key: str) -> bytes:
        if not is_protobuf(body):
            raise TypeError(
                f"publish a protobuf message, or bytes, not '{type(body).__name__}'"
            )
        raw = t.cast(bytes, body.SerializeToString())
        # Refuse keys that a consumer would refuse. The number of values is the
        # consumer's setting.
        check_protobuf(body.DESCRIPTOR, raw, sys.maxsize)
        return raw

    def claims(self, body: t.Any) -> bool:
        return is_protobuf(body)

    def headers(self, body: t.Any) -> dict[str, str]:
        return {self._header: _name(type(body))}

    def decoder(self, schema: t.Any) -> Decoder:
        if isinstance(schema, ProtobufSchema):
            return partial(self._decode_as, schema.cls)
        return self.decode

    def knowing(self, schemas: Sequence[t.Any]) -> Protobuf:
        declared = [s.cls for s in schemas if isinstance(s, ProtobufSchema)]
        types = (*declared, *self._types.values())
        return Protobuf(*types, header=self._header, max_items=self._max_items)

    def _decode_as(self, cls: t.Any, message: Message) -> t.Any:
        name = self._read_type(message)
        if name is None:
            return _parse_unnamed(cls, message.raw, self._max_items)
        if name != _name(cls):
            raise UndecodableMessage(
                f"it is a protobuf '{escape(name)}', and the consumer takes"
                f" '{_name(cls)}'"
            )
        return _parse(cls, message.raw, self._max_items)

    def _read_type(self, message: Message) -> str | None:
        name = message.headers.get(self._header)
        # Some programs write it as a URL: type.googleapis.com/shop.Order.
        return None if name is None else str(name).rpartition("/")[2]


class ProtobufSchema:
    """The schema of a consumer whose ``schema=`` is a protobuf message class.

    :param cls: The message class.
    """

    def __init__(self, cls: t.Any) -> None:
        self.cls = cls

    def load(self, data: t.Any) -> t.Any:
        """Return a protobuf message as it is, or parse one from JSON values.

        :raises InvalidMessage: if the values do not fit the class.
        """
        if isinstance(data, self.cls):
            return data
        try:
            if not isinstance(data, dict):
                raise TypeError(f"it is a '{type(data).__name__}', not a mapping")
            check_plain(self.cls.DESCRIPTOR, data)
            return _parse_json_values(data, self.cls())
        except Exception as error:
            raise InvalidMessage(
                f"it is no '{_name(self.cls)}': {escape(error)}"
            ) from error


def is_protobuf_class(given: t.Any) -> bool:
    """Return whether a value is a protobuf class, without importing protobuf."""
    return isinstance(given, type) and issubclass(given, _message_class())


def is_protobuf(given: t.Any) -> bool:
    """Return whether a value is a protobuf message, without importing protobuf."""
    return isinstance(given, _message_class())


def to_json_values(message: t.Any) -> t.Any:
    """Convert a protobuf message to a dict, by protobuf's own JSON mapping."""
    from google.protobuf import json_format

    return json_format.MessageToDict(message)


def _parse_json_values(data: dict[str, t.Any], message: t.Any) -> t.Any:
    from google.protobuf import json_format

    return json_format.ParseDict(data, message)


def _message_class() -> t.Any:
    """Return the base class of protobuf messages; ``()`` if it is not imported."""
    module = sys.modules.get("google.protobuf.message")
    return () if module is None else module.Message


def _name(cls: t.Any) -> str:
    return t.cast(str, cls.DESCRIPTOR.full_name)


def _parse_unnamed(cls: t.Any, raw: bytes, max_items: int) -> t.Any:
    """Parse a body without a type's name as a message of the consumer's type.

    Bodies that are empty, or have unknown fields only, must name their type.

    :raises UndecodableMessage: for such a body.
    """
    message = _parse(cls, raw, max_items)
    if message.ListFields() or not cls.DESCRIPTOR.fields:
        return message
    if not raw:
        raise UndecodableMessage(
            f"it is empty, and no header says that it is a '{_name(cls)}'"
        )
    if message.ByteSize():  # It has unknown fields only.
        raise UndecodableMessage(
            f"it has no field of '{_name(cls)}', only others: it may be of another type"
        )
    return message


def _parse(cls: t.Any, raw: bytes, max_items: int) -> t.Any:
    try:
        check_protobuf(cls.DESCRIPTOR, raw, max_items)
        message = cls.FromString(raw)
    except Exception as error:
        hint = "; it may be framed for a schema registry" if raw[:1] == b"\0" else ""
        raise UndecodableMessage(
            f"the body is no '{_name(cls)}': {escape(error)}{hint}"
        ) from error
    if not message.IsInitialized():
        missing = ", ".join(message.FindInitializationErrors())
        raise UndecodableMessage(f"it has no {missing}, which '{_name(cls)}' requires")
    return message
