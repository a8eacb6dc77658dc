"""Explanations of TLS errors: the cause, and what to do."""

from __future__ import annotations

import os
import re
import socket
import ssl
import typing as t
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping

from ..errors import ConfigurationError
from ..text import escape
from ..text import quote

#: OpenSSL's error numbers (``X509_V_ERR_…``) of certificates.
_EXPIRED = (10,)
_NOT_YET_VALID = (9,)
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
_ANOTHER_HOST = (62, 63, 64)

#: OpenSSL's names of the errors raised when an answer is not TLS.
_NOT_TLS_REASONS = (
    *("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST"),
    *("RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"),
)

#: To be formatted with the beginning of a URL without TLS.
NO_TLS_ADVICE = (
    "the broker does not speak TLS at this port. Use the port of TLS, or let"
    " 'QCONSUME_BROKER_URL' begin with '{0}'."
)

#: Seconds for connecting, and for each answer of a handshake.
_HANDSHAKE_TIMEOUT_SECONDS = 1.0
_READ_BYTES = 65_536


class Advice(t.NamedTuple):
    """The options and schemes by which a user configures TLS on one broker."""

    #: The option for the authority's certificate.
    authority: str
    #: The option for the client's own certificate.
    own: str
    #: The beginning of a URL without TLS.
    plain: str
    #: The beginning of a URL with TLS.
    secure: str


def explain_error(error: BaseException, advice: Advice) -> str | None:
    """Explain why a connection failed; ``None`` if TLS is not the cause."""
    for cause in iterate_causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _explain_certificate(cause, advice)
        if isinstance(cause, ssl.SSLError):
            return _explain_handshake(cause, advice)
    return None


def diagnose_plain_connection(host: str, port: int, advice: Advice) -> str | None:
    """Return advice if a server expects TLS at this port, else ``None``."""
    if not speaks_tls(host, port):
        return None
    return (
        "the broker speaks TLS at this port. Let 'QCONSUME_BROKER_URL' begin with"
        f" '{advice.secure}'."
    )


def diagnose_tls(
    host: str, port: int, context: ssl.SSLContext, advice: Advice
) -> str | None:
    """Try a TLS handshake; explain its error, or return ``None`` if it succeeds."""
    try:
        _shake_hands(host, port, context)
        return None
    except (ssl.SSLEOFError, ConnectionResetError):
        return NO_TLS_ADVICE.format(advice.plain)
    except ssl.SSLError as error:
        return explain_error(error, advice)
    except (OSError, ValueError):
        return None


def speaks_tls(host: str, port: int) -> bool:
    """Return whether a server speaks TLS; its certificate is not verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        _shake_hands(host, port, context)
        return True
    except (OSError, ValueError):
        return False


def _shake_hands(host: str, port: int, context: ssl.SSLContext) -> None:
    """Make a TLS handshake with a server, and disconnect.

    gevent's TLS sockets stay open if the server resets the connection at once (gevent
    26.9), so this uses a plain socket.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname=host)
    with socket.create_connection(
        (host, port), _HANDSHAKE_TIMEOUT_SECONDS
    ) as connection:
        while True:
            try:
                return session.do_handshake()
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                if data := connection.recv(_READ_BYTES):
                    incoming.write(data)
                else:
                    incoming.write_eof()


def check_files(options: Mapping[str, t.Any], names: Iterable[str], where: str) -> None:
    """Refuse certificate files that cannot be read, with a clear error.

    :param names: The options that name files or folders.
    :param where: The setting that has the options.
    :raises ConfigurationError: with the option and the path.
    """
    for name in names:
        path = options.get(name)
        if path is None:
            continue
        try:
            _open(path)
        except (OSError, TypeError, ValueError) as error:
            why = getattr(error, "strerror", None) or escape(error)
            raise ConfigurationError(
                f"'{name}' in {where} must name a file that can be read, not"
                f" {quote(path)} ({why})."
            ) from error


def trust_authority(context: ssl.SSLContext, authority: str) -> None:
    """Make an SSL context trust the certificate authorities of a file or a folder."""
    if os.path.isdir(authority):
        context.load_verify_locations(capath=authority)
    else:
        context.load_verify_locations(cafile=authority)


def explain_option_error(error: Exception) -> str:
    """Explain an error that kombu or a client library raises for an option."""
    if isinstance(error, KeyError):  # kombu looks this option up in a dict.
        values = "'required', 'optional' or 'none'"
        return f"'ssl_cert_reqs' must be {values}, not {quote(error.args[0])}"
    if unknown := re.search(r"unexpected keyword argument '(\w+)'", str(error)):
        return f"there is no option '{unknown[1]}'"
    if isinstance(error, ssl.SSLError):
        return escape(error.args[-1]).rstrip(".")
    # The name of the called function is cut off.
    return escape(str(error).rpartition("() ")[2]).rstrip(".")


def _open(path: t.Any) -> None:
    if os.path.isdir(os.fspath(path)):
        os.listdir(path)
    else:
        with open(os.fspath(path), "rb"):
            pass


def iterate_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of its cause, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _explain_certificate(error: ssl.SSLCertVerificationError, advice: Advice) -> str:
    code, verify_message = error.verify_code, error.verify_message
    if code in _EXPIRED:
        return "the broker's certificate has expired. Renew it on the broker."
    if code in _NOT_YET_VALID:
        return "the broker's certificate is not valid yet. Compare the clocks."
    if code in _UNKNOWN_AUTHORITY:
        return (
            "an unknown authority has signed the broker's certificate"
            f" ({verify_message}). Name the authority's certificate by"
            f" {advice.authority}."
        )
    if code in _ANOTHER_HOST:
        return (
            "the broker's certificate is for another host"
            f" ({verify_message.rstrip('.')}). Use the host's name that the"
            " certificate has in 'QCONSUME_BROKER_URL'."
        )
    return f"the broker's certificate cannot be verified ({escape(verify_message)})."


def _explain_handshake(error: ssl.SSLError, advice: Advice) -> str | None:
    reason = getattr(error, "reason", None) or ""
    if reason in _NOT_TLS_REASONS:
        return NO_TLS_ADVICE.format(advice.plain)
    if "ALERT" in reason and "CLOSE_NOTIFY" not in reason:
        return (
            f"the broker refuses our side of TLS ({reason}). If it requires a client's"
            f" certificate, name it by {advice.own}."
        )
    return None
