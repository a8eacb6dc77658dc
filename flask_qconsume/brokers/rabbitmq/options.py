"""Transport options for RabbitMQ, checked before anything is connected.

py-amqp would tell a mistyped one by a ``TypeError`` from the midst of connecting, or
not at all.
"""

from __future__ import annotations

import inspect
import socket
import typing as t
from collections.abc import Callable
from collections.abc import Mapping

import amqp
from amqp.transport import SSLTransport

from ...broker import tls
from ...errors import ConfigurationError
from ...settings import suggest
from ...text import quote

WHERE = "'QCONSUME_TRANSPORT_OPTIONS'"

#: The files among the options of ``ssl``.
_FILES = ("ca_certs", "certfile", "keyfile")

#: kombu's own, which a connection of ours has no use for, but no harm from either.
_OF_KOMBU = (
    *("confirm_publish", "max_retries", "interval_start", "interval_step"),
    *("interval_max", "failover_strategy"),
)

_LOGIN_METHODS = ("PLAIN", "AMQPLAIN", "EXTERNAL", "GSSAPI")

ADVICE = tls.Advice(
    authority=f"'ssl': {{'ca_certs': '/path'}} in {WHERE}",
    own=f"'ssl': {{'certfile': '/path', 'keyfile': '/path'}} in {WHERE}",
    plain="amqp://",
    secure="amqps://",
)


def check_options(options: Mapping[str, t.Any]) -> None:
    """Refuse options that a connection cannot be opened with.

    :raises ConfigurationError: that names the option.
    """
    known = _known()
    for name, value in options.items():
        if name not in known:
            raise ConfigurationError(
                f"{WHERE} has {quote(name)}, which is no option for RabbitMQ"
                f"{suggest(name, known)} There are: {', '.join(known)}."
            )
        check, kind = _CHECKS.get(name, (None, ""))
        if check is not None and not check(value):
            raise ConfigurationError(
                f"'{name}' in {WHERE} must be {kind}, not {quote(value)}."
            )


def check_tls(options: Mapping[str, t.Any]) -> None:
    """Refuse options of ``ssl`` that no socket can be wrapped with.

    :raises ConfigurationError: that names the option or the file.
    """
    tls.check_files(options, _FILES, f"'ssl' of {WHERE}")
    if (error := _fails(options)) is None:
        return
    name = next((n for n in options if _fails({n: options[n]})), "")
    which = f"'{name}'" if name else "together they"
    raise ConfigurationError(
        f"Of the TLS options ('ssl' in {WHERE}, or 'ssl_…' in the URL), {which} cannot"
        f" be used: {tls.explain_option_error(error)}."
    ) from error


def _fails(options: Mapping[str, t.Any]) -> Exception | None:
    """Why no socket can be wrapped, as it will be when it is connected."""
    transport = SSLTransport("localhost", ssl=dict(options))
    with socket.socket() as plain:
        try:
            transport._wrap_socket(plain, **transport.sslopts).close()
        except (TypeError, ValueError, OSError) as error:
            return error
    return None


def _known() -> list[str]:
    """The names of all options there are."""
    parameters = inspect.signature(amqp.Connection).parameters
    return sorted({*parameters, *_OF_KOMBU} - {"kwargs"})


def _is_seconds(value: t.Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value is None or (number and value > 0)


def _is_of_sockets(value: t.Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(each, int) for pair in value.items() for each in pair
    )


_SECONDS = (_is_seconds, "seconds")
_CHECKS: dict[str, tuple[Callable[[t.Any], bool], str]] = {
    "ssl": (
        lambda value: value is None or isinstance(value, (bool, Mapping)),
        "True, False or a mapping of options",
    ),
    "connect_timeout": _SECONDS,
    "read_timeout": _SECONDS,
    "write_timeout": _SECONDS,
    "socket_settings": (_is_of_sockets, "a mapping of socket options to numbers"),
    "client_properties": (
        lambda value: isinstance(value, Mapping),
        "a mapping of texts",
    ),
    "login_method": (
        lambda value: value in _LOGIN_METHODS,
        f"one of {', '.join(_LOGIN_METHODS)}",
    ),
}
