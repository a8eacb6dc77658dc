"""The objects that all subscriptions of one worker share."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask

from ..broker.base import Broker
from ..settings import Settings
from .event import Event
from .fair_share import FairShare
from .outage_log import OutageLog
from .reconnect import BrokerProbe


@dataclass(frozen=True)
class WorkerContext:
    """The objects that all subscriptions of one worker share."""

    app: Flask
    broker: Broker
    settings: Settings
    #: Set as soon as the worker is asked to stop.
    stopping: Event
    probe: BrokerProbe
    outages: OutageLog
    #: When messages may be begun beside a web server; ``None`` if at any time.
    fair_share: FairShare | None
