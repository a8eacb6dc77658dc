"""Rows of the tables that map a broker's error codes to our errors. No I/O.

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

    After ``BrokerUnavailable`` the operation is tried again; any other error makes a
    worker's start fail.
    """

    codes: tuple[Code, ...]
    error: type[BrokerError]
    advice: str
    #: A regular expression that the error's text must match; empty for any text.
    pattern: str = ""
