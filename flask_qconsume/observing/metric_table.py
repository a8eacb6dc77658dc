"""The metrics: one table of names, kinds, labels, help texts and buckets.

The reference page is rendered from :data:`TABLE`. Names and labels are part of the
public interface: dashboards and alerts use them.
"""

from __future__ import annotations

import typing as t

Kind = t.Literal["counter", "histogram", "gauge"]

#: Upper bounds in seconds of a handler's or a confirmation's duration.
SHORT_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)

#: Upper bounds in seconds of the time in a queue, which an outage makes long.
LONG_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    *(60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0),
)


class Metric(t.NamedTuple):
    """One metric: a row of :data:`TABLE`."""

    name: str
    kind: Kind
    #: The names of its labels, in the order of the values of :class:`.Series`.
    labels: tuple[str, ...]
    help: str
    #: The unit in UCUM's notation, such as ``s`` or ``{message}``; empty for a number
    #: without one. In a name, ``s`` is spelled ``seconds``.
    unit: str
    #: The upper bounds of a histogram's buckets, without the infinite one.
    buckets: tuple[float, ...] = ()
    #: True for a gauge that each process has: shown with the label ``pid``, if several
    #: processes are shown together. Of any other gauge, the newest value is shown.
    per_process: bool = False


def _counter(name: str, labels: tuple[str, ...], unit: str, help: str) -> Metric:
    return Metric(f"qconsume_{name}_total", "counter", labels, help, unit)


def _histogram(
    name: str, labels: tuple[str, ...], buckets: tuple[float, ...], help: str
) -> Metric:
    return Metric(f"qconsume_{name}_seconds", "histogram", labels, help, "s", buckets)


def _worker_gauge(name: str, labels: tuple[str, ...], unit: str, help: str) -> Metric:
    return Metric(f"qconsume_{name}", "gauge", labels, help, unit, per_process=True)


def _queue_gauge(name: str, unit: str, help: str) -> Metric:
    labels = ("consumer", "queue")
    return Metric(f"qconsume_queue_{name}", "gauge", labels, help, unit)


CONSUMER = ("consumer",)

MESSAGES = _counter(
    "messages",
    ("consumer", "outcome"),
    "{attempt}",
    "Attempts that a worker has decided, by outcome: ack, retry, reject or drop.",
)
FAILURES = _counter(
    "failures",
    ("consumer", "error"),
    "{attempt}",
    "Attempts that failed with an error, by the name of the error's class. Each process"
    " names at most 50 classes; the rest are counted as 'other'. Processes that have"
    " ended name at most 200 together.",
)
DEAD_LETTERS = _counter(
    "dead_letters",
    ("consumer", "error"),
    "{message}",
    "Messages that became dead letters, by the name of the error's class, which is"
    " bounded in the same way. It is 'Reject' if the app's code rejected a message"
    " without an error, and 'Crash' if a message has crashed its processes.",
)
SUSPECTS = _counter(
    "suspects",
    CONSUMER,
    "{message}",
    "Messages that were moved to the suspects, since a process may have crashed while"
    " it handled them.",
)
STALE_SETTLEMENTS = _counter(
    "stale_settlements",
    CONSUMER,
    "{message}",
    "Handled messages whose connection was lost before they were settled; the broker"
    " delivers them again.",
)
SETTLEMENT_ERRORS = _counter(
    "settlement_errors",
    CONSUMER,
    "{attempt}",
    "Failed attempts to settle a handled message.",
)
HANDLER_SECONDS = _histogram(
    "handler",
    CONSUMER,
    SHORT_BUCKETS,
    "Duration of an attempt, hooks included.",
)
QUEUE_SECONDS = _histogram(
    "queue",
    CONSUMER,
    LONG_BUCKETS,
    "Time from the publishing of a message, a delay included, to the start of its first"
    " attempt. A message without a timestamp is not counted.",
)
END_TO_END_SECONDS = _histogram(
    "end_to_end",
    CONSUMER,
    LONG_BUCKETS,
    "Time from the first publishing of a message to its last outcome, over all"
    " attempts. A message without a timestamp is not counted.",
)
PUBLISHED = _counter(
    "published",
    ("outcome",),
    "{message}",
    "Messages that the app has published, by outcome: confirmed or failed.",
)
CONFIRM_SECONDS = _histogram(
    "confirm",
    (),
    SHORT_BUCKETS,
    "Time from a call of 'publish' or 'publish_many' to its last confirmation.",
)
RECONNECTS = _counter(
    "reconnects",
    CONSUMER,
    "{connection}",
    "Connections that were opened again after a loss.",
)
HUB_BLOCKED_SECONDS = _counter(
    "hub_blocked_seconds",
    (),
    "s",
    "Time for which gevent's event loop was blocked: the delays of a timer that is due"
    " twice a second, as far as they are 0.1 s or more.",
)

CONNECTED = _worker_gauge(
    "connected",
    CONSUMER,
    "",
    "1 if the consumer is connected to its queue and to its suspects, else 0.",
)
IN_FLIGHT = _worker_gauge(
    "in_flight", CONSUMER, "{message}", "Messages that are being handled."
)
PREFETCHED = _worker_gauge(
    "prefetched",
    CONSUMER,
    "{message}",
    "Messages that were received, and wait in the worker for their handler.",
)
HUB_LATENCY_SECONDS = _worker_gauge(
    "hub_latency_seconds",
    (),
    "s",
    "How late gevent's event loop ran a timer that was due in the last half second, or"
    " for how long a timer is overdue.",
)
WEB_SHARE = _worker_gauge(
    "web_share",
    (),
    "",
    "Part of the time, from 0 to 1, in which no messages are started, since web"
    " requests in the same process have priority.",
)
LIVE = _worker_gauge(
    "live", (), "", "1 unless the process should be restarted, else 0."
)
READY = _worker_gauge("ready", (), "", "1 if all consumers are connected, else 0.")
PROBLEMS = _worker_gauge(
    "problems", ("kind",), "{problem}", "Problems that the health checks show, by kind."
)
WORKER_INFO = _worker_gauge(
    "worker_info",
    ("version", "python", "broker"),
    "",
    "Always 1; its labels describe the worker.",
)

QUEUE_READY = _queue_gauge(
    "ready",
    "{message}",
    "Messages that wait in the queue; on Kafka, also those being handled.",
)
QUEUE_DELAYED = _queue_gauge(
    "delayed",
    "{message}",
    "Messages that are held back until they are due: retries and delayed ones.",
)
QUEUE_IN_HAND = _queue_gauge(
    "in_hand",
    "{message}",
    "Messages that workers have fetched and not settled, suspects included.",
)
QUEUE_SUSPECTS = _queue_gauge(
    "suspects", "{message}", "Messages that wait as suspects."
)
QUEUE_DEAD_LETTERS = _queue_gauge(
    "dead_letters", "{message}", "Dead letters of the queue."
)
QUEUE_OLDEST_SECONDS = _queue_gauge(
    "oldest_seconds",
    "s",
    "Time for which the oldest of the waiting messages has been ready; 0 if no message"
    " waits.",
)
QUEUE_LAG = _queue_gauge(
    "lag",
    "{message}",
    "On Kafka: records behind the offsets that the consumer's group has committed,"
    " without delayed retries.",
)
QUEUE_READ_SECONDS = _queue_gauge(
    "read_seconds",
    "s",
    "Time of the last reading of these values, in seconds since 1970.",
)

TABLE: tuple[Metric, ...] = (
    MESSAGES,
    FAILURES,
    DEAD_LETTERS,
    SUSPECTS,
    STALE_SETTLEMENTS,
    SETTLEMENT_ERRORS,
    HANDLER_SECONDS,
    QUEUE_SECONDS,
    END_TO_END_SECONDS,
    PUBLISHED,
    CONFIRM_SECONDS,
    RECONNECTS,
    HUB_BLOCKED_SECONDS,
    CONNECTED,
    IN_FLIGHT,
    PREFETCHED,
    HUB_LATENCY_SECONDS,
    WEB_SHARE,
    LIVE,
    READY,
    PROBLEMS,
    WORKER_INFO,
    QUEUE_READY,
    QUEUE_DELAYED,
    QUEUE_IN_HAND,
    QUEUE_SUSPECTS,
    QUEUE_DEAD_LETTERS,
    QUEUE_OLDEST_SECONDS,
    QUEUE_LAG,
    QUEUE_READ_SECONDS,
)

BY_NAME = {metric.name: metric for metric in TABLE}
