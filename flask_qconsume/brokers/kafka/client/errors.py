"""What Kafka's client raises, in our words. No I/O."""

from __future__ import annotations

import typing as t

from confluent_kafka import KafkaError
from confluent_kafka import KafkaException

from ....errors import BrokerError
from ....errors import BrokerRefused
from ....errors import BrokerUnavailable
from ....errors import PublishRefused
from ....errors import TopologyMismatch
from ....errors import UnsupportedByBroker
from .refusals import refusal_of

#: How an error begins.
_SENTENCES: dict[type[BrokerError], str] = {
    BrokerRefused: "Kafka refuses us",
    BrokerUnavailable: "Kafka does not answer, or cannot do that now",
    TopologyMismatch: "Kafka does not create a topic like this",
    PublishRefused: "Kafka refused the record",
    UnsupportedByBroker: "This Kafka cannot do that",
    BrokerError: "Kafka's client failed",
}


def is_refusal(error: KafkaError) -> bool:
    """Whether the broker will go on to say no until somebody changes something."""
    return refusal_of(error).error is BrokerRefused


def ends_client(error: KafkaError) -> bool:
    """Whether a client that meets this is of no use, and should be given up."""
    full = KafkaError.GROUP_MAX_SIZE_REACHED
    return bool(error.fatal()) or is_refusal(error) or error.code() == full


def translate_error(error: t.Any) -> BrokerError:
    """An error or an exception of the client's as one of ours."""
    if isinstance(error, KafkaException) and error.args:
        error = error.args[0]
    if not isinstance(error, KafkaError):
        return BrokerError(f"Kafka's client failed: {error}")
    found = refusal_of(error)
    said = error.str().rstrip(".")
    return found.error(
        f"{_SENTENCES[found.error]}: {said} ({error.name()}). {found.advice}"
    )
