"""What Kafka's client raises, in our words. No I/O."""

from __future__ import annotations

import typing as t

from confluent_kafka import KafkaError
from confluent_kafka import KafkaException

from ..errors import BrokerError
from ..errors import BrokerRefused
from ..errors import BrokerUnavailable

_REFUSED = {
    KafkaError._AUTHENTICATION: "Check the user and the password, and the options"
    " 'sasl.mechanism' and 'security.protocol'.",
    KafkaError.SASL_AUTHENTICATION_FAILED: "Check the user and the password.",
    KafkaError._SSL: "The certificate must be that of the host in the address, and"
    " 'ssl.ca.location' must name who has signed it.",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "The user must be allowed to read, write"
    " and describe the topic.",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "The user must be allowed to read the"
    " group, which has the queue's name.",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "The user has no permission for that on"
    " the cluster.",
}

_UNAVAILABLE = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError._WAIT_COORD,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}


def is_refusal(error: KafkaError) -> bool:
    """Whether the broker will go on to say no until somebody changes something."""
    if error.code() == KafkaError._SSL:
        # Otherwise somebody hung up in the middle of it, as a broker that ends does.
        return "verif" in error.str()
    return error.code() in _REFUSED


def translated(error: t.Any) -> BrokerError:
    """An error or an exception of the client's as one of ours.

    >>> translated(KafkaError(KafkaError._TRANSPORT))
    BrokerUnavailable('Kafka does not answer: Local: Broker transport failure')
    """
    if isinstance(error, KafkaException) and error.args:
        error = error.args[0]
    if not isinstance(error, KafkaError):
        return BrokerError(f"Kafka's client failed: {error}")
    if error.code() in _REFUSED:
        remedy = _REFUSED[error.code()]
        return BrokerRefused(f"Kafka refuses us: {error.str()}. {remedy}")
    if error.code() in _UNAVAILABLE:
        return BrokerUnavailable(f"Kafka does not answer: {error.str()}")
    return BrokerError(f"Kafka's client failed: {error.str()} ({error.name()})")
