"""What one contender is asked to do, handed to its process as JSON."""

from __future__ import annotations

import dataclasses
import json

#: What every message is: 190 bytes of JSON, an order with three items.
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

    #: ``rabbitmq``, ``rabbitmq-quorum``, ``redis``, ``redis-streams``, ``memory`` or
    #: ``kafka``.
    broker: str
    #: Where the throwaway broker listens.
    url: str
    #: The queue, stream or topic; new for each run.
    queue: str
    #: How many messages.
    count: int
    #: How many messages are handled at once, where a contender can.
    concurrency: int = 100
    #: How many the broker hands out unacknowledged, where it can be told.
    prefetch: int = 200
    #: Seconds that the handler waits, as if for a database.
    work: float = 0.0
    #: Whether the handler gets its message through a schema.
    schema: bool = False
    #: How many bytes each body has, as one text of JSON; 0 for `BODY`.
    size: int = 0
    #: How many more consumers the app has, with nothing to do.
    idle: int = 0
    #: How many messages, of all that are there, are handled; 0 for all.
    first: int = 0
    #: Messages a second that are published while others are handled.
    pace: float = 200.0
    #: Seconds that a worker at rest is watched for.
    rest: float = 20.0

    @classmethod
    def from_json(cls, text: str) -> Job:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @property
    def handled(self) -> int:
        """How many messages are handled."""
        return self.first or self.count

    @property
    def warm_up(self) -> int:
        """How many messages are handled before the clock starts."""
        return self.handled // 10

    @property
    def body(self) -> bytes:
        """What every message is."""
        return b'"%s"' % (b"x" * (self.size - 2)) if self.size else BODY
