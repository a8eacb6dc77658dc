"""What was registered on one extension or blueprint. Knows no app."""

from __future__ import annotations

from ..errors import RegistrationError
from ..formats.base import Format
from .consumer import Declared
from .consumer import ErrorHandlers
from .consumer import Hook


class Scope:
    """What was registered on one extension or blueprint."""

    def __init__(self) -> None:
        self.consumers: dict[str, Declared] = {}
        self.before_message: list[Hook] = []
        self.after_message: list[Hook] = []
        self.teardown_message: list[Hook] = []
        self.before_worker: list[Hook] = []
        self.teardown_worker: list[Hook] = []
        self.errors: ErrorHandlers = {}
        self.formats: list[Format] = []
        #: Whether an app has it.
        self.owned = False
        #: Why nothing more can be registered; empty while it can.
        self.closed_by = ""

    def check_open(self, what: str) -> None:
        """Refuse a registration that would come too late to have any effect."""
        if self.closed_by:
            raise RegistrationError(
                f"'{what}' cannot be called any more: {self.closed_by}. Register"
                " consumers and hooks when the module is imported or the app is made."
            )
