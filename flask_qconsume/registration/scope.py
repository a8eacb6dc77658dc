"""The registrations of one extension or blueprint. Knows no app."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ..errors import RegistrationError
from ..formats.base import Format
from .consumer import Declaration
from .consumer import ErrorHandlers
from .consumer import Hook


class Scope:
    """The registrations of one extension or blueprint.

    :param defaults: Options that its consumers inherit, already checked.
    """

    def __init__(self, defaults: Mapping[str, t.Any]) -> None:
        self.defaults = defaults
        self.consumers: dict[str, Declaration] = {}
        self.before_message: list[Hook] = []
        self.after_message: list[Hook] = []
        self.teardown_message: list[Hook] = []
        self.before_worker: list[Hook] = []
        self.teardown_worker: list[Hook] = []
        self.errors: ErrorHandlers = {}
        self.formats: list[Format] = []
        #: True once it is registered on an app.
        self.owned = False
        #: The reason why further registrations are refused; empty while they are
        #: accepted.
        self.closed_by = ""

    def check_open(self, what: str) -> None:
        """Refuse a registration that would have no effect, since it is too late.

        :param what: The name of the method that registers, for the error's text.
        :raises RegistrationError: if the scope is closed.
        """
        if self.closed_by:
            raise RegistrationError(
                f"'{what}' cannot be called any more: {self.closed_by}. Register"
                " consumers and hooks when the module is imported or the app is made."
            )
