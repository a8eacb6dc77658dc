"""Warns if Redis may delete messages when its memory is full (``maxmemory-policy``).

Queues are ordinary keys. With a policy other than ``noeviction``, Redis deletes whole
queues when its memory is full, without an error.
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterator

from ...errors import BrokerError
from ...errors import BrokerUnavailable
from .server import Server

_SAFE = "noeviction"
_REMEDY = f"Set 'maxmemory-policy' to '{_SAFE}' (redis.conf, or CONFIG SET)."


def describe_evictions(server: Server) -> Iterator[str]:
    """Yield a warning for each node that may delete messages if its memory is full.

    :raises BrokerUnavailable: if a node does not answer.
    """
    addresses_by_policy: dict[str | None, list[str]] = {}
    for address, node in server.list_nodes():
        addresses_by_policy.setdefault(_read_policy(node), []).append(address)
    for policy, addresses in addresses_by_policy.items():
        if policy != _SAFE:
            where = ", ".join(filter(None, addresses))
            yield _describe_policy(policy, f" ({where})" if where else "")


def _describe_policy(policy: str | None, where: str) -> str:
    if policy is None:
        return (
            f"It is not known whether Redis{where} evicts messages when its memory is"
            " full: the user may ask neither 'INFO memory' nor 'CONFIG GET"
            f" maxmemory-policy'. Permit one ('+info'). {_REMEDY}"
        )
    if policy.startswith("volatile-"):
        return (
            f"Redis{where} has the 'maxmemory-policy' '{policy}': when its memory is"
            " full, it evicts keys that expire. Queues do not expire, unless another"
            f" program lets them; then whole queues are lost silently. {_REMEDY}"
        )
    return (
        f"MESSAGES CAN BE LOST: Redis{where} has the 'maxmemory-policy' '{policy}', so"
        " when its memory is full, it deletes whole queues without a word, also those"
        f" of confirmed messages. {_REMEDY}"
    )


def _read_policy(node: Server) -> str | None:
    """Return a node's ``maxmemory-policy``; ``None`` if Redis does not tell it."""
    return _read_policy_from_info(node) or _read_policy_from_config(node)


def _read_policy_from_info(node: Server) -> str | None:
    text = _ask(node, "INFO", "memory") or b""
    match = re.search(rb"^maxmemory_policy:(\S+)", text, re.MULTILINE)
    return match[1].decode() if match else None


def _read_policy_from_config(node: Server) -> str | None:
    answer = _ask(node, "CONFIG", "GET", "maxmemory-policy") or ()
    # A mapping in version 3 of the protocol, a flat list in version 2.
    values = list(answer.values()) if isinstance(answer, dict) else answer[1:]
    return values[0].decode() if values else None


def _ask(node: Server, *command: str) -> t.Any:
    """Return the answer to a command; ``None`` if the answer is an error."""
    try:
        return node.send_commands([command])[0]
    except BrokerUnavailable:
        raise
    except BrokerError:
        return None
