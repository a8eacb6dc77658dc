"""What all commands have in common: the app's consumers, and errors in one line."""

from __future__ import annotations

import contextlib
import functools
import typing as t
from collections.abc import Callable
from collections.abc import Iterator

import click
from flask.cli import ScriptInfo

from ..broker.checks import explain_in_process_broker
from ..errors import QConsumeError
from ..errors import UnsupportedByBroker
from ..extension import AppConsumers
from ..extension import get_app_consumers

F = t.TypeVar("F", bound=Callable[..., t.Any])


@contextlib.contextmanager
def clean_errors() -> Iterator[None]:
    """Show an error of this package in one line, and exit with the code 1.

    Load the app within this context, since loading finds errors of the configuration.
    """
    try:
        yield
    except QConsumeError as error:
        raise click.ClickException(str(error)) from error


def with_consumers(function: F) -> F:
    """Decorator for commands: passes :class:`AppConsumers` as the first argument."""

    @click.pass_context
    def wrapper(ctx: click.Context, /, *args: t.Any, **kwargs: t.Any) -> t.Any:
        with clean_errors():
            app = ctx.ensure_object(ScriptInfo).load_app()
            with (
                app.app_context(),
                contextlib.closing(get_app_consumers(app)) as consumers,
            ):
                return ctx.invoke(function, consumers, *args, **kwargs)

    return t.cast(F, functools.update_wrapper(wrapper, function))


def check_shared(consumers: AppConsumers, what: str) -> None:
    """Refuse a command that has no effect with ``memory://``.

    :param what: Description of the command, as in "publish a message".
    :raises UnsupportedByBroker: if other processes cannot share the broker.
    """
    if not consumers.broker.capabilities.shared:
        raise UnsupportedByBroker(
            explain_in_process_broker(
                what,
                consumers.broker,
                "so this command would have no effect on other processes.",
            )
        )
