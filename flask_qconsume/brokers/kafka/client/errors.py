"""Errors of the Kafka client, translated into those of this package. No I/O."""

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
from .refusals import find_refusal

#: How the text of an error begins.
_SENTENCES: dict[type[BrokerError], str] = {
    BrokerRefused: "Kafka refuses us",
    BrokerUnavailable: "Kafka does not answer, or cannot do that now",
    TopologyMismatch: "Kafka does not create a topic like this",
    PublishRefused: "Kafka refused the record",
    UnsupportedByBroker: "This Kafka cannot do that",
    BrokerError: "Kafka's client failed",
}


def is_refusal(error: KafkaError) -> bool:
    """Return whether an error lasts until the broker or the app is reconfigured."""
    return find_refusal(error).error is BrokerRefused


def ends_client(error: KafkaError) -> bool:
    """Return whether the client cannot be used any more after an error."""
    full = KafkaError.GROUP_MAX_SIZE_REACHED
    return bool(error.fatal()) or is_refusal(error) or error.code() == full


def translate_error(error: t.Any) -> BrokerError:
    """Convert an error of the Kafka client to an error of this package."""
    if isinstance(error, KafkaException) and error.args:
        error = error.args[0]
    if not isinstance(error, KafkaError):
        return BrokerError(f"Kafka's client failed: {error}")
    refusal = find_refusal(error)
    text = error.str().rstrip(".")
    return refusal.error(
        f"{_SENTENCES[refusal.error]}: {text} ({error.name()}). {refusal.advice}"
    )


def describe_trouble(error: KafkaError) -> str:
    """Return the text to log for an error that does not end the consumer."""
    if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return (
            f"{error.str()}. The consumer gets nothing from this topic until it exists."
            " 'flask qconsume declare' creates the topics that are the app's own."
        )
    return f"Kafka's client says: {error.str()} ({error.name()}); it goes on."
