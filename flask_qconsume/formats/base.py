"""The base class of all formats; an app can subclass it."""

from __future__ import annotations

import typing as t
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from ..message import Message

#: Decodes the body of a message from its bytes.
Decoder = Callable[[Message], t.Any]


class Format:
    """Encodes and decodes the bodies of some content types.

    Write a subclass, and pass an instance to :meth:`.QConsume.register_format`. Many
    greenlets use it at the same time.
    """

    #: Content types in lower case, without parameters. Bodies are published with the
    #: first one. ``"+avro"`` means every type with that ending that has no other
    #: format.
    content_types: Sequence[str] = ()

    def decode(self, message: Message) -> t.Any:
        """Decode ``message.raw``, and return the body.

        An error makes the message a dead letter, with the error's text as its reason. A
        raised outcome has its usual effect: raise ``Retry()`` if the message is not at
        fault, for example when a schema registry does not answer.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot decode")

    def encode(self, body: t.Any, routing_key: str) -> bytes:
        """Encode a body, and return its bytes. An error becomes a ``PublishError``.

        :param body: A value of any type except ``bytes``, which are sent as they are.
        :param routing_key: The routing key that the body is published with.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot encode")

    def claims(self, body: t.Any) -> bool:
        """Return whether a body without a content type is published in this format."""
        return False

    def headers(self, body: t.Any) -> Mapping[str, t.Any]:
        """Return headers to be sent with a body, in addition to the content type."""
        return {}

    def decoder(self, schema: t.Any) -> Decoder:
        """Return the function that decodes the bodies of one consumer.

        :param schema: The consumer's ``schema=``, for formats that need a schema.
        """
        return self.decode

    def knowing(self, schemas: Sequence[t.Any]) -> Format:
        """Return this format, or a copy that knows the schemas of all consumers."""
        return self
