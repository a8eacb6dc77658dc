"""Transport options for RabbitMQ, checked before a connection is opened.

py-amqp would report a mistyped option by a ``TypeError`` while connecting, or ignore
it.
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

#: Options of ``ssl`` that name files.
_FILE_OPTIONS = ("ca_certs", "certfile", "keyfile")

#: Options of kombu that our connections ignore.
_KOMBU_OPTIONS = (
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
    """Check the names and the types of the transport options.

    :raises ConfigurationError: that names the option.
    """
    known = _list_options()
    for name, value in options.items():
        if name not in known:
            raise ConfigurationError(
                f"{WHERE} has {quote(name)}, which is no option for RabbitMQ"
                f"{suggest(name, known)} There are: {', '.join(known)}."
            )
        check, kind = _OPTION_CHECKS.get(name, (None, ""))
        if check is not None and not check(value):
            raise ConfigurationError(
                f"'{name}' in {WHERE} must be {kind}, not {quote(value)}."
            )


def check_tls(options: Mapping[str, t.Any]) -> None:
    """Check the options of ``ssl`` by wrapping a socket that is not connected.

    :raises ConfigurationError: that names the option or the file.
    """
    tls.check_files(options, _FILE_OPTIONS, f"'ssl' of {WHERE}")
    if (error := _try_wrapping(options)) is None:
        return
    name = next((n for n in options if _try_wrapping({n: options[n]})), "")
    which = f"'{name}'" if name else "together they"
    raise ConfigurationError(
        f"Of the TLS options ('ssl' in {WHERE}, or 'ssl_…' in the URL), {which} cannot"
        f" be used: {tls.explain_option_error(error)}."
    ) from error


def _try_wrapping(options: Mapping[str, t.Any]) -> Exception | None:
    """Wrap a socket with TLS options; return the error, or ``None`` if it works."""
    transport = SSLTransport("localhost", ssl=dict(options))
    with socket.socket() as plain:
        try:
            transport._wrap_socket(plain, **transport.sslopts).close()
        except (TypeError, ValueError, OSError) as error:
            return error
    return None


def _list_options() -> list[str]:
    parameters = inspect.signature(amqp.Connection).parameters
    return sorted({*parameters, *_KOMBU_OPTIONS} - {"kwargs"})


def _is_seconds(value: t.Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value is None or (number and value > 0)


def _is_socket_settings(value: t.Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(number, int) for pair in value.items() for number in pair
    )


_SECONDS = (_is_seconds, "seconds")
_OPTION_CHECKS: dict[str, tuple[Callable[[t.Any], bool], str]] = {
    "ssl": (
        lambda value: value is None or isinstance(value, (bool, Mapping)),
        "True, False or a mapping of options",
    ),
    "connect_timeout": _SECONDS,
    "read_timeout": _SECONDS,
    "write_timeout": _SECONDS,
    "socket_settings": (_is_socket_settings, "a mapping of socket options to numbers"),
    "client_properties": (
        lambda value: isinstance(value, Mapping),
        "a mapping of texts",
    ),
    "login_method": (
        lambda value: value in _LOGIN_METHODS,
        f"one of {', '.join(_LOGIN_METHODS)}",
    ),
}
