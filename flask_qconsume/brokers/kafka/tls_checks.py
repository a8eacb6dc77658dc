"""Checks TLS files before use, and explains failed TLS connections to Kafka.

librdkafka reports all problems of certificates with the same error, does not name
missing files, and reports a port without TLS as one that does not answer.
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
    """Check that the TLS files in librdkafka's settings can be read.

    :raises ConfigurationError: with the option and the file.
    """
    for options in (config.admin(), config.consumer(""), config.producer()):
        tls.check_files(options, _FILES, _WHERE)
        if options.get(_AUTHORITY) != "probe":
            tls.check_files(options, [_AUTHORITY], _WHERE)


def raise_tls_problem(config: KafkaConfig, error: BrokerError) -> None:
    """If TLS is the reason why Kafka does not answer, raise an explanation.

    :param error: The client's error, which becomes the cause of the raised error.
    :raises BrokerRefused: with the problem, and what to do.
    """
    if problem := _find_problem(config):
        raise BrokerRefused(f"No connection to Kafka: {problem}") from error


def _find_problem(config: KafkaConfig) -> str | None:
    """Connect to the first address; return what is wrong with TLS, or ``None``."""
    options = config.admin()
    host, port = config.addresses[0]
    if "SSL" not in str(options.get("security.protocol", "")).upper():
        return tls.diagnose_plain_connection(host, port, ADVICE)
    return tls.diagnose_tls(host, port, _create_context(options), ADVICE)


def _create_context(options: t.Mapping[str, t.Any]) -> ssl.SSLContext:
    """Create an SSL context that checks certificates like librdkafka does."""
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
