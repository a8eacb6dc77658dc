"""A row of a broker's table of errors: the error raised here, and what to do. No I/O.

The reference pages show these tables, so the advice is written for users.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ..errors import BrokerError

#: Numbers on RabbitMQ, names on Kafka.
Code = t.TypeVar("Code", int, str)


@dataclass(frozen=True)
class Refusal(t.Generic[Code]):
    """The meaning of some error codes of a broker.

    ``BrokerUnavailable`` passes, and the operation is tried again; any other error ends
    a worker's start.
    """

    codes: tuple[Code, ...]
    error: type[BrokerError]
    advice: str
    #: A regular expression that the error's text must match; empty for any text.
    pattern: str = ""
