"""TLS of connections to Kafka: files are checked before use, failures are explained.

librdkafka reports every problem of a certificate alike, names no missing file, and says
of a port that speaks no TLS only that it does not answer.
"""

from __future__ import annotations

import ssl
import typing as t

from ...broker import tls
from ...errors import BrokerError
from ...errors import BrokerRefused
from .client.config import KafkaConfig

#: Options that name files. The certificate authority may be a folder, or "probe".
_FILES = (
    "ssl.certificate.location",
    "ssl.crl.location",
    "ssl.key.location",
    "ssl.keystore.location",
)
_AUTHORITY = "ssl.ca.location"
_WHERE = "'QCONSUME_TRANSPORT_OPTIONS'"

ADVICE = tls.Advice(
    authority=f"'kafka_common_config': {{'{_AUTHORITY}': '/path'}} in {_WHERE}",
    own="'ssl.certificate.location' and 'ssl.key.location'",
    plain="kafka://",
    secure="kafkas://",
)


def check_files(config: KafkaConfig) -> None:
    """Refuse files that cannot be read.

    :raises ConfigurationError: that names the option and the file.
    """
    for options in (config.admin(), config.consumer(""), config.producer()):
        tls.check_files(options, _FILES, _WHERE)
        if options.get(_AUTHORITY) != "probe":
            tls.check_files(options, [_AUTHORITY], _WHERE)


def raise_tls_problem(config: KafkaConfig, error: BrokerError) -> None:
    """Raise the reason, if TLS is why Kafka does not answer.

    :param error: The error so far.
    :raises BrokerRefused: with what to do.
    """
    if problem := _find_problem(config):
        raise BrokerRefused(f"No connection to Kafka: {problem}") from error


def _find_problem(config: KafkaConfig) -> str | None:
    """Return what is wrong with TLS, by trying it at the first address."""
    options = config.admin()
    host, port = config.addresses[0]
    if "SSL" not in str(options.get("security.protocol", "")).upper():
        return tls.diagnose_plain_connection(host, port, ADVICE)
    return tls.diagnose_tls(host, port, _create_context(options), ADVICE)


def _create_context(options: t.Mapping[str, t.Any]) -> ssl.SSLContext:
    """Return a context that verifies certificates as librdkafka does."""
    context = ssl.create_default_context()
    if str(options.get("enable.ssl.certificate.verification", "true")) == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif options.get("ssl.endpoint.identification.algorithm") == "none":
        context.check_hostname = False
    authority = options.get(_AUTHORITY)
    if authority and authority != "probe":
        tls.trust_authority(context, authority)
    return context
