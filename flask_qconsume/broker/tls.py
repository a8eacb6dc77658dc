"""What is wrong with TLS: by name, and with what to do."""

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

#: OpenSSL's numbers (``X509_V_ERR_…``) by what they say of the broker's certificate.
_EXPIRED = (10,)
_NOT_YET_VALID = (9,)
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
_ANOTHER_HOST = (62, 63, 64)

#: OpenSSL's names for an answer that is no TLS.
_NO_TLS = (
    *("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST"),
    *("RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"),
)

#: With how the URL begins without TLS.
NO_TLS_ADVICE = (
    "the broker does not speak TLS at this port. Use the port of TLS, or let"
    " 'QCONSUME_BROKER_URL' begin with '{0}'."
)

#: Seconds that a server has to answer to the first message of TLS.
_LOOK = 1.0
#: Bytes that are read at once.
_CHUNK = 65_536


class Advice(t.NamedTuple):
    """Where the user of one broker sets what has to do with TLS."""

    #: What names the authority's certificate.
    authority: str
    #: What names our own certificate.
    own: str
    #: How the URL begins without TLS, and with it.
    plain: str
    secure: str


def explain_error(error: BaseException, advice: Advice) -> str | None:
    """What is wrong with TLS, if that is why a connection failed."""
    for each in iterate_causes(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return _of_certificate(each, advice)
        if isinstance(each, ssl.SSLError):
            return _of_handshake(each, advice)
    return None


def diagnose_plain_connection(host: str, port: int, advice: Advice) -> str | None:
    """What is wrong with a connection without TLS that the server ended at once."""
    if not speaks_tls(host, port):
        return None
    return (
        "the broker speaks TLS at this port. Let 'QCONSUME_BROKER_URL' begin with"
        f" '{advice.secure}'."
    )


def diagnose_tls(
    host: str, port: int, context: ssl.SSLContext, advice: Advice
) -> str | None:
    """What is wrong with TLS at a server, found by trying it."""
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
    """Whether a server speaks TLS; whose certificate it shows makes no difference."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        _shake_hands(host, port, context)
        return True
    except (OSError, ValueError):
        return False


def _shake_hands(host: str, port: int, context: ssl.SSLContext) -> None:
    """Begin to speak TLS with a server, and hang up.

    gevent's sockets of TLS stay open where a server resets the connection at once
    (gevent 26.9), so this speaks over a plain one.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    spoken = context.wrap_bio(incoming, outgoing, server_hostname=host)
    with socket.create_connection((host, port), _LOOK) as found:
        while True:
            try:
                return spoken.do_handshake()
            except ssl.SSLWantReadError:
                found.sendall(outgoing.read())
                if data := found.recv(_CHUNK):
                    incoming.write(data)
                else:
                    incoming.write_eof()


def check_files(options: Mapping[str, t.Any], names: Iterable[str], where: str) -> None:
    """Refuse files that cannot be read, before TLS says so without their names.

    :param names: The options that name files, or folders.
    :param where: The setting that they are in.
    :raises ConfigurationError: that names the option and the file.
    """
    for name in names:
        path = options.get(name)
        if path is None:
            continue
        try:
            _read(path)
        except (OSError, TypeError, ValueError) as error:
            why = getattr(error, "strerror", None) or escape(error)
            raise ConfigurationError(
                f"'{name}' in {where} must name a file that can be read, not"
                f" {quote(path)} ({why})."
            ) from error


def trust_authority(context: ssl.SSLContext, authority: str) -> None:
    """Trust the certificates in a file or a folder, too."""
    if os.path.isdir(authority):
        context.load_verify_locations(capath=authority)
    else:
        context.load_verify_locations(cafile=authority)


def explain_option_error(error: Exception) -> str:
    """What is wrong with a URL or an option, from what kombu or its client raises."""
    if isinstance(error, KeyError):  # kombu looks that one up.
        values = "'required', 'optional' or 'none'"
        return f"'ssl_cert_reqs' must be {values}, not {quote(error.args[0])}"
    if unknown := re.search(r"unexpected keyword argument '(\w+)'", str(error)):
        return f"there is no option '{unknown[1]}'"
    if isinstance(error, ssl.SSLError):
        return escape(error.args[-1]).rstrip(".")
    # Without the function that was called.
    return escape(str(error).rpartition("() ")[2]).rstrip(".")


def _read(path: t.Any) -> None:
    if os.path.isdir(os.fspath(path)):
        os.listdir(path)
    else:
        with open(os.fspath(path), "rb"):
            pass


def iterate_causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_certificate(error: ssl.SSLCertVerificationError, advice: Advice) -> str:
    code, said = error.verify_code, error.verify_message
    if code in _EXPIRED:
        return "the broker's certificate has expired. Renew it on the broker."
    if code in _NOT_YET_VALID:
        return "the broker's certificate is not valid yet. Compare the clocks."
    if code in _UNKNOWN_AUTHORITY:
        return (
            f"an unknown authority has signed the broker's certificate ({said})."
            f" Name the authority's certificate by {advice.authority}."
        )
    if code in _ANOTHER_HOST:
        return (
            f"the broker's certificate is for another host ({said.rstrip('.')}). Use"
            " the host's name that the certificate has in 'QCONSUME_BROKER_URL'."
        )
    return f"the broker's certificate cannot be verified ({escape(said)})."


def _of_handshake(error: ssl.SSLError, advice: Advice) -> str | None:
    reason = getattr(error, "reason", None) or ""
    if reason in _NO_TLS:
        return NO_TLS_ADVICE.format(advice.plain)
    if "ALERT" in reason and "CLOSE_NOTIFY" not in reason:
        return (
            f"the broker refuses our side of TLS ({reason}). If it wants a certificate"
            f" of ours, name that by {advice.own}."
        )
    return None
