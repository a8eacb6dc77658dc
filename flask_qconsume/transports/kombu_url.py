"""The URL of the server that a kombu connection uses at present. No I/O."""

from __future__ import annotations

import typing as t

from kombu.utils.url import as_url
from kombu.utils.url import parse_url


def url_of(client: t.Any) -> str:
    """The URL of a :class:`kombu.Connection`, its password included.

    kombu hands a transport its first URL whole. Of the alternates of a list, and of
    what ``Connection.switch`` is given, the connection keeps parts without a query.
    """
    hostname, kind = client.hostname or "", client.uri_prefix
    if "://" in hostname:
        # kombu takes away what stands before a "+".
        return f"{kind}+{hostname}" if kind else hostname
    whole = (url for url in client.alt if _agrees(client, _parts(url)))
    return next(whole, None) or _joined(client)


def _parts(url: str) -> dict[str, t.Any]:
    """The parts of a URL; none of one with several hosts, which kombu cannot parse."""
    try:
        return t.cast("dict[str, t.Any]", parse_url(url))
    except ValueError:
        return dict.fromkeys(("transport", "port", "virtual_host"))


def _agrees(client: t.Any, parts: dict[str, t.Any]) -> bool:
    """Whether the connection has these parts of a URL."""
    kept = (client.transport_cls, client.hostname, client.userid, client.password)
    names = ("transport", "hostname", "userid", "password")
    # Where a URL has no port or path, the connection keeps the one that it had.
    port = parts["port"] in (None, client.port)
    path = parts["virtual_host"] in (None, client.virtual_host)
    return port and path and kept == tuple(parts.get(name) for name in names)


def _joined(client: t.Any) -> str:
    host = client.hostname or ""
    url = str(
        as_url(
            client.transport_cls,
            "[]" if ":" in host else host,
            client.port,
            client.userid,
            client.password,
            client.virtual_host,
        )
    )
    # An address of IPv6, whose colons and brackets kombu would quote.
    return url.replace("%5B%5D", f"[{host}]")
