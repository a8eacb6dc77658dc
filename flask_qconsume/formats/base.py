"""What a format is: the point where an app adds one of its own."""

from __future__ import annotations

import typing as t
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from ..message import Message

#: Makes the body of a message out of its bytes.
Decoder = Callable[[Message], t.Any]


class Format:
    """How the bodies of some content types are written and read.

    Make a subclass and give an instance to :meth:`.QConsume.register_format`. It is
    used by many greenlets at once.
    """

    #: In lower case and without parameters. Bodies are published as the first of them.
    #: ``"+avro"`` stands for every type that ends so and has no format of its own.
    content_types: Sequence[str] = ()

    def decode(self, message: Message) -> t.Any:
        """The body of a message: what ``message.raw`` means.

        Whatever is raised makes the message a dead letter, with the error's text as its
        reason; but an outcome is itself. Raise ``Retry()`` where it is not the message
        that is wrong, as when a schema registry does not answer.
        """
        raise NotImplementedError(f"{type(self).__name__} decodes nothing")

    def encode(self, body: t.Any, routing_key: str) -> bytes:
        """The bytes of a body; whatever is raised becomes a ``PublishError``.

        :param body: Anything but ``bytes``, which are sent as they are.
        :param routing_key: What it is published with.
        """
        raise NotImplementedError(f"{type(self).__name__} encodes nothing")

    def claims(self, body: t.Any) -> bool:
        """Whether a body is published in this format where no content type is given."""
        return False

    def headers(self, body: t.Any) -> Mapping[str, t.Any]:
        """Headers that are sent with a body, to tell more than the content type can."""
        return {}

    def decoder(self, schema: t.Any) -> Decoder:
        """What decodes the bodies of one consumer; asked for once, before it runs.

        :param schema: The consumer's ``schema=``, for formats that read by one.
        """
        return self.decode

    def knowing(self, schemas: Sequence[t.Any]) -> Format:
        """The same format, once the schemas of all consumers of an app are known."""
        return self
