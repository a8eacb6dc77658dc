"""Classes of Kafka's client, as the client itself defines them.

OpenTelemetry's instrumentation of the client replaces the classes in the package
:mod:`confluent_kafka`. Its spans would tell the same as ours, and its headers would
replace the context that ours have written.
"""

from confluent_kafka.cimpl import Consumer
from confluent_kafka.cimpl import Producer

__all__ = ["Consumer", "Producer"]
