"""The job of a contender, passed to its process as JSON."""

from __future__ import annotations

import dataclasses
import json

#: The body of each message: 190 bytes of JSON, an order with three items.
BODY = json.dumps(
    {
        "id": 4711,
        "customer": "Ada Lovelace",
        "items": [
            {"sku": "A-100", "count": 2, "price": "19.99"},
            {"sku": "B-200", "count": 1, "price": "5.00"},
            {"sku": "C-300", "count": 7, "price": "0.49"},
        ],
    },
    separators=(",", ":"),
).encode()


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of one contender."""

    #: One of `brokers.NAMES`.
    broker: str
    #: The throwaway broker's URL.
    url: str
    #: The queue, stream or topic; new for each run.
    queue: str
    #: Number of messages.
    count: int
    #: Messages handled at once, if the contender supports that.
    concurrency: int = 100
    #: Most unacknowledged messages, if the broker supports a limit.
    prefetch: int = 200
    #: Seconds that the handler waits, as for a database.
    work: float = 0.0
    #: Whether bodies are loaded by a schema.
    schema: bool = False
    #: Count messages for Prometheus.
    metrics: bool = False
    #: Bytes of each body, one JSON text; 0 for `BODY`.
    size: int = 0
    #: Number of idle consumers of the app.
    idle: int = 0
    #: Messages to handle of those in the queue; 0 for all.
    first: int = 0
    #: Messages per second that are published during the run.
    pace: float = 200.0
    #: Seconds for which an idle worker is measured.
    rest: float = 20.0

    @classmethod
    def from_json(cls, text: str) -> Job:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @property
    def handled(self) -> int:
        """Number of messages that are handled."""
        return self.first or self.count

    @property
    def warm_up(self) -> int:
        """Number of messages that are handled before the clock starts."""
        return self.handled // 10

    @property
    def body(self) -> bytes:
        """The body of each message."""
        return b'"%s"' % (b"x" * (self.size - 2)) if self.size else BODY
