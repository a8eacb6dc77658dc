"""TLS of connections to Kafka: checked before it is used, and told when it fails.

librdkafka says of each certificate that it could not be verified, of a file that is
missing only the option, and of a port that speaks otherwise nothing but that it does
not answer.
"""

from __future__ import annotations

import ssl
import typing as t

from ...broker import tls
from ...errors import BrokerError
from ...errors import BrokerRefused
from .client.config import KafkaConfig

#: The options that name files; the authority may be a folder, or "probe".
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
    options = config.admin()
    tls.check_files(options, _FILES, _WHERE)
    if options.get(_AUTHORITY) != "probe":
        tls.check_files(options, [_AUTHORITY], _WHERE)


def check(config: KafkaConfig, error: BrokerError) -> None:
    """Tell what is wrong with TLS, if that is why Kafka does not answer.

    :param error: What is known of it so far.
    :raises BrokerRefused: that says what to do.
    """
    if problem := _problem(config):
        raise BrokerRefused(f"No connection to Kafka: {problem}") from error


def _problem(config: KafkaConfig) -> str | None:
    """What is wrong with TLS, found by trying it at the first address."""
    options = config.admin()
    host, port = config.addresses[0]
    if "SSL" not in str(options.get("security.protocol", "")).upper():
        return tls.diagnose_plain_connection(host, port, ADVICE)
    return tls.diagnose_tls(host, port, _context(options), ADVICE)


def _context(options: t.Mapping[str, t.Any]) -> ssl.SSLContext:
    """As librdkafka verifies certificates with these options."""
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
