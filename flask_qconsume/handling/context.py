"""The message that is being handled: :data:`current_message`.

Knows no gevent: code that starts greenlets for a handler registers how to end them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from contextvars import ContextVar

from werkzeug.local import LocalProxy

from ..message import Message
from ..registration.consumer import Consumer

_UNBOUND = """\
Working outside of a message.

'current_message' is there only while a message is handled: in a handler, in its hooks
and error handlers, and in greenlets started by 'flask_qconsume.spawn'."""


class Handling:
    """The handling of one message, and functions to be called at its end."""

    __slots__ = ("consumer", "endings", "failure_told", "message")

    def __init__(self, consumer: Consumer, message: Message) -> None:
        self.consumer = consumer
        self.message = message
        #: True once listeners were told that the attempt failed, which is done once.
        self.failure_told = False
        #: The functions to call at the end; ``None`` if there are none.
        self.endings: contextlib.ExitStack | None = None

    def at_end(self, ending: Callable[[], object]) -> None:
        """Add a function that is called after the handler, before teardown hooks."""
        if self.endings is None:
            self.endings = contextlib.ExitStack()
        self.endings.callback(ending)

    def end(self) -> None:
        """Call the functions that :meth:`at_end` has added, the latest first.

        All are called, even if one of them raises an error.
        """
        if self.endings is not None:
            self.endings.close()


current: ContextVar[Handling] = ContextVar("flask_qconsume.handling")


@contextlib.contextmanager
def about(consumer: Consumer, message: Message) -> Iterator[None]:
    """Within the block, make a message the current one, for log lines about it."""
    token = current.set(Handling(consumer, message))
    try:
        yield
    finally:
        current.reset(token)


#: The :class:`Message` that is handled at present.
current_message: Message = LocalProxy(  # type: ignore[assignment]
    current, "message", unbound_message=_UNBOUND
)
