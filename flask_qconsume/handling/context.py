"""The current message, while it is handled.

Knows no gevent: code that starts greenlets for a handler registers how they end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextvars import ContextVar

from werkzeug.local import LocalProxy

from ..message import Message

_UNBOUND = """\
Working outside of a message.

'current_message' is there only while a message is handled: in a handler, in its hooks
and error handlers, and in greenlets started by 'flask_qconsume.spawn'."""


class Handling:
    """A message while it is handled, and the calls that end its greenlets."""

    __slots__ = ("_endings", "message")

    def __init__(self, message: Message) -> None:
        self.message = message
        self._endings: contextlib.ExitStack | None = None

    def at_end(self, ending: Callable[[], object]) -> None:
        """Call a function when the handler has ended, before the teardown hooks."""
        if self._endings is None:
            self._endings = contextlib.ExitStack()
        self._endings.callback(ending)

    def end(self) -> None:
        """Make all calls of :meth:`at_end`, the latest first, even if one raises."""
        if self._endings is not None:
            self._endings.close()


current: ContextVar[Handling] = ContextVar("flask_qconsume.handling")

#: The :class:`Message` that is handled at present.
current_message: Message = LocalProxy(  # type: ignore[assignment]
    current, "message", unbound_message=_UNBOUND
)
