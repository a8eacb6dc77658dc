"""What a broker can do, as data that ``plan``, the docs and the tests speak from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Capabilities:
    """What one kind of broker can do."""

    #: Its name for people: ``"RabbitMQ"``.
    broker: str
    #: Whether other processes see the messages.
    shared: bool
    #: Whether messages outlive a kill of the worker that held them.
    survives_worker_death: bool
    #: Whether messages outlive a restart of the broker itself.
    durable: bool
    priorities: bool
    #: The longest delay in seconds.
    max_delay: float
    #: How it delays, dead-letters, counts deaths and confirms, each in words.
    delays: str
    dead_letters: str
    counts_deaths: str
    confirms: str
    unroutable: str
    #: What it promises, and when it does not, in plain words.
    guarantee: str
