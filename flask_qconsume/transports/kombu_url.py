"""The URL of the server that a kombu connection uses at present. No I/O."""

from __future__ import annotations

import typing as t

from kombu.utils.url import as_url
from kombu.utils.url import parse_url


def find_current_url(client: t.Any) -> str:
    """Return the URL that a :class:`kombu.Connection` is using, with its password.

    kombu keeps only the first URL whole. Of another URL of a list, or of one given to
    ``Connection.switch``, it keeps the host, the user and so on, but not the query.
    """
    hostname, kind = client.hostname or "", client.uri_prefix
    if "://" in hostname:
        # kombu has cut off the part before a "+".
        return f"{kind}+{hostname}" if kind else hostname
    matching_urls = (url for url in client.alt if _has_parts(client, _parse(url)))
    return next(matching_urls, None) or _join_parts(client)


def _parse(url: str) -> dict[str, t.Any]:
    """Return the parts of a URL; each is ``None`` if the URL has several hosts."""
    try:
        return t.cast("dict[str, t.Any]", parse_url(url))
    except ValueError:
        return dict.fromkeys(("transport", "port", "virtual_host"))


def _has_parts(client: t.Any, parts: dict[str, t.Any]) -> bool:
    """Return whether a URL has the host, port and user of the connection."""
    connection_parts = (
        client.transport_cls,
        client.hostname,
        client.userid,
        client.password,
    )
    names = ("transport", "hostname", "userid", "password")
    # If a URL has no port or path, the connection keeps its former port or path.
    port = parts["port"] in (None, client.port)
    path = parts["virtual_host"] in (None, client.virtual_host)
    return (
        port and path and connection_parts == tuple(parts.get(name) for name in names)
    )


def _join_parts(client: t.Any) -> str:
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
    # kombu would quote the colons and brackets of an IPv6 address.
    return url.replace("%5B%5D", f"[{host}]")
