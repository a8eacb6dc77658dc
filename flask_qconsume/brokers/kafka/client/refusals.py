"""The meaning of Kafka's errors, by code: the error raised here, and what to do.

The codes are those of the protocol and, with an underscore, of librdkafka:
https://kafka.apache.org/protocol#protocol_error_codes

Texts contain names that users chose (topics, users, hosts), so only codes are compared.
librdkafka has one code for all errors of TLS, so OpenSSL's own number in the text is
compared there.
"""

from __future__ import annotations

import re

from confluent_kafka import KafkaError

from ....broker.refusal_table import Refusal
from ....errors import BrokerError
from ....errors import BrokerRefused
from ....errors import BrokerUnavailable
from ....errors import PublishRefused
from ....errors import TopologyMismatch
from ....errors import UnsupportedByBroker

#: Codes are names of attributes of :class:`confluent_kafka.KafkaError`.
REFUSALS: tuple[Refusal[str], ...] = (
    Refusal(
        ("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "ILLEGAL_SASL_STATE"),
        BrokerRefused,
        "Check the user and the password, and the options 'sasl.mechanism' and"
        " 'security.protocol'.",
    ),
    Refusal(
        ("UNSUPPORTED_SASL_MECHANISM",),
        BrokerRefused,
        "Set the option 'sasl.mechanism' to one that the broker has"
        " ('sasl.enabled.mechanisms').",
    ),
    Refusal(
        (
            "DELEGATION_TOKEN_AUTH_DISABLED",
            "DELEGATION_TOKEN_AUTHORIZATION_FAILED",
            "DELEGATION_TOKEN_EXPIRED",
            "DELEGATION_TOKEN_NOT_FOUND",
            "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED",
        ),
        BrokerRefused,
        "Get another delegation token, or use a user and a password.",
    ),
    Refusal(
        ("TOPIC_AUTHORIZATION_FAILED",),
        BrokerRefused,
        "The user needs 'Read' or 'Write' on the topic, and 'Create' unless another"
        " user declares ('kafka-acls.sh').",
    ),
    Refusal(
        ("GROUP_AUTHORIZATION_FAILED",),
        BrokerRefused,
        "The user needs 'Read' on the group, which has the queue's name"
        " ('kafka-acls.sh').",
    ),
    Refusal(
        ("CLUSTER_AUTHORIZATION_FAILED",),
        BrokerRefused,
        "The user needs permissions ('kafka-acls.sh'): 'Create' on the cluster to"
        " create topics; 'Write' on a topic to publish, before Kafka 2.8"
        " 'IdempotentWrite' on the cluster, too.",
    ),
    Refusal(
        ("TRANSACTIONAL_ID_AUTHORIZATION_FAILED",),
        BrokerRefused,
        "The user needs 'Write' on the transactional id ('kafka-acls.sh').",
    ),
    Refusal(
        ("SECURITY_DISABLED",),
        BrokerRefused,
        "The brokers have no authorizer ('authorizer.class.name').",
    ),
    Refusal(
        ("FENCED_INSTANCE_ID", "_FENCED", "UNRELEASED_INSTANCE_ID"),
        BrokerRefused,
        "Another process has the same 'group.instance.id': give each process its own,"
        " or leave the option out.",
    ),
    Refusal(
        ("INCONSISTENT_GROUP_PROTOCOL",),
        BrokerRefused,
        "The group's other members share partitions in another way: all need the same"
        " 'partition.assignment.strategy', or another program uses this group's name.",
    ),
    Refusal(
        ("INVALID_SESSION_TIMEOUT",),
        BrokerRefused,
        "Set 'QCONSUME_LEASE' or 'session.timeout.ms' to what the brokers allow"
        " ('group.min.session.timeout.ms', 'group.max.session.timeout.ms').",
    ),
    Refusal(
        ("INVALID_GROUP_ID",),
        BrokerRefused,
        "Give the queue a name, which is also the group's name.",
    ),
    Refusal(
        (
            "UNSUPPORTED_VERSION",
            "_UNSUPPORTED_FEATURE",
            "UNSUPPORTED_FOR_MESSAGE_FORMAT",
            "UNSUPPORTED_COMPRESSION_TYPE",
        ),
        UnsupportedByBroker,
        "This version of Kafka does not support that: update the brokers, or leave out"
        " the option that asks for it.",
    ),
    Refusal(
        (
            "INVALID_PARTITIONS",
            "INVALID_CONFIG",
            "INVALID_REPLICA_ASSIGNMENT",
            "POLICY_VIOLATION",
            "TOPIC_EXCEPTION",
        ),
        TopologyMismatch,
        "See the transport options 'partitions', 'replication_factor', 'topics' and"
        " 'kafka_topic_config'.",
    ),
    Refusal(
        (
            "INVALID_MSG",
            "INVALID_MSG_SIZE",
            "INVALID_RECORD",
            "INVALID_REQUIRED_ACKS",
            "INVALID_TIMESTAMP",
            "_UNKNOWN_PARTITION",
        ),
        PublishRefused,
        "The topic does not take a record like this.",
    ),
    Refusal(
        ("MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"),
        PublishRefused,
        "The record is larger than the topic's 'max.message.bytes': publish a smaller"
        " body, or raise that limit.",
    ),
    Refusal(
        ("INVALID_REPLICATION_FACTOR",),
        BrokerUnavailable,
        "Fewer brokers are up than replicas are asked for: start them, or lower the"
        " transport option 'replication_factor'.",
    ),
    Refusal(
        ("NOT_ENOUGH_REPLICAS", "NOT_ENOUGH_REPLICAS_AFTER_APPEND", "_ISR_INSUFF"),
        BrokerUnavailable,
        "Fewer replicas are in sync than the topic's 'min.insync.replicas': check"
        " whether brokers are down.",
    ),
    Refusal(
        ("KAFKA_STORAGE_ERROR", "LOG_DIR_NOT_FOUND"),
        BrokerUnavailable,
        "The broker cannot use its disk: look at its log.",
    ),
    Refusal(
        ("THROTTLING_QUOTA_EXCEEDED",),
        BrokerUnavailable,
        "The user's quota is used up: wait, or raise it ('kafka-configs.sh').",
    ),
    Refusal(
        ("GROUP_MAX_SIZE_REACHED",),
        BrokerUnavailable,
        "Run fewer processes of this queue, or raise the brokers' 'group.max.size'.",
    ),
    Refusal(
        (
            "_ALL_BROKERS_DOWN",
            "_RESOLVE",
            "_TIMED_OUT",
            "_TIMED_OUT_QUEUE",
            "_TRANSPORT",
            "_WAIT_CACHE",
            "_WAIT_COORD",
            "NETWORK_EXCEPTION",
            "REQUEST_TIMED_OUT",
        ),
        BrokerUnavailable,
        "If that lasts, check that a broker runs at the address, and that"
        " 'security.protocol' suits its port.",
    ),
    Refusal(
        (
            "BROKER_NOT_AVAILABLE",
            "COORDINATOR_LOAD_IN_PROGRESS",
            "COORDINATOR_NOT_AVAILABLE",
            "ELIGIBLE_LEADERS_NOT_AVAILABLE",
            "FENCED_LEADER_EPOCH",
            "LEADER_NOT_AVAILABLE",
            "NOT_CONTROLLER",
            "NOT_COORDINATOR",
            "NOT_LEADER_FOR_PARTITION",
            "OFFSET_NOT_AVAILABLE",
            "PREFERRED_LEADER_NOT_AVAILABLE",
            "REASSIGNMENT_IN_PROGRESS",
            "REPLICA_NOT_AVAILABLE",
            "STALE_BROKER_EPOCH",
            "STALE_CTRL_EPOCH",
            "UNKNOWN_LEADER_EPOCH",
        ),
        BrokerUnavailable,
        "Partitions are moving between brokers. If that lasts, check whether brokers"
        " are down.",
    ),
)

_BY_CODE = {getattr(KafkaError, name): row for row in REFUSALS for name in row.codes}

#: Advice by OpenSSL's number of the reason; numbers from 1000 on are alerts of the
#: broker. https://www.openssl.org/docs/man3.0/man3/SSL_alert_type_string.html
_CERTIFICATE = (
    "The certificate must be that of the host in the address, and 'ssl.ca.location'"
    " must name the authority that signed it."
)
_OURS = (
    "The broker does not take our certificate: see 'ssl.certificate.location' and"
    " 'ssl.key.location'."
)
_PROTOCOL = (
    "The port speaks no TLS, or only other versions of TLS. 'kafka://' connects"
    " without TLS, 'kafkas://' with it."
)
_TLS_ADVICE = {
    **dict.fromkeys((134,), _CERTIFICATE),
    **dict.fromkeys((1042, 1043, 1044, 1045, 1046, 1048, 1049, 1116), _OURS),
    **dict.fromkeys((258, 266, 267, 1040, 1070, 1071), _PROTOCOL),
}
_OPENSSL = re.compile("error:([0-9A-F]{8}):")
_BROKEN_OFF = Refusal(
    ("_SSL",), BrokerUnavailable, "The connection was lost while it used TLS."
)
_UNKNOWN = Refusal[str]((), BrokerError, "Look at the log of the broker.")


def find_refusal(error: KafkaError) -> Refusal[str]:
    """Find the exception and the advice for one of Kafka's error codes."""
    if error.code() == KafkaError._SSL:
        return _find_tls_refusal(error.str())
    return _BY_CODE.get(error.code(), _UNKNOWN)


def _find_tls_refusal(text: str) -> Refusal[str]:
    for number in _OPENSSL.findall(text):
        # The number holds library and reason; 12 bits are enough for the reason in any
        # version.
        advice = _TLS_ADVICE.get(int(number, 16) & 0xFFF)
        if advice is not None:
            return Refusal(("_SSL",), BrokerRefused, advice)
    return _BROKEN_OFF
