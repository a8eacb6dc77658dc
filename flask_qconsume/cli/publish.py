"""Command ``flask qconsume publish``: publishes one message."""

from __future__ import annotations

import sys
import typing as t

import click

from ..extension import AppConsumers
from ..formats.bounds import check_depth
from ..formats.json import Json
from ..formats.table import Formats
from ..message import Message
from ..settings import JSON
from ..settings import MSGPACK
from ..text import escape
from ..text import quote
from .context import check_shared
from .context import with_consumers
from .durations import Duration


@click.command()
@click.argument("routing_key")
@click.argument("body", required=False)
@click.option(
    "--file",
    type=click.File("rb"),
    help="Read the body from a file, unchanged, in place of BODY.",
)
@click.option(
    "--header", "headers", multiple=True, metavar="NAME=VALUE", help="Add a header."
)
@click.option(
    "--content-type", default=JSON, show_default=True, help="Content type of the body."
)
@click.option(
    "--delay", type=Duration(), help="Deliver it after this time, such as 30s or 2h."
)
@click.option(
    "--expires", type=Duration(), help="Discard it if it waits longer, as in 2h."
)
@click.option("--key", help="Key for ordering and partitions.")
@click.option("--priority", type=click.IntRange(0, 9), help="0 to 9, highest first.")
@with_consumers
def publish(
    app: AppConsumers,
    routing_key: str,
    body: str | None,
    file: t.BinaryIO | None,
    headers: tuple[str, ...],
    content_type: str,
    **options: t.Any,
) -> None:
    """Publish a message and print its id, once the broker has confirmed it.

    BODY is JSON unless --content-type says otherwise; '-' reads it from standard input.
    """
    check_shared(app, "publish a message")
    click.echo(
        app.publish(
            routing_key,
            _read_body(body, file, content_type, app.formats),
            headers=dict(_parse_header(header) for header in headers),
            content_type=content_type,
            **options,
        )
    )


def _read_body(
    text: str | None, file: t.BinaryIO | None, content_type: str, formats: Formats
) -> t.Any:
    if (text is None) == (file is None):
        raise click.UsageError(
            "Give the message's body in one way: BODY, '-' for standard input, or"
            " --file."
        )
    raw = file.read() if file is not None else _read_argument(t.cast(str, text))
    if isinstance(formats.find(content_type), Json):
        _parse_json(raw, content_type)
    if content_type == MSGPACK and text not in (None, "-"):
        # The argument is JSON, since msgpack cannot be typed.
        return _parse_json(raw, JSON)
    return raw


def _read_argument(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    return text.encode("utf-8", "surrogateescape")


def _parse_json(raw: bytes, content_type: str) -> t.Any:
    """Parse the JSON of the command's argument, as strictly as a consumer does.

    :raises click.UsageError: if a consumer could not parse it.
    """
    try:
        check_depth(raw)
        return Json().decode(Message(raw, "", content_type=content_type))
    except Exception as error:
        raise click.UsageError(
            f"The body is not JSON ({escape(error)}). Quote it for the shell, as in"
            " '{\"id\": 1}'; or name its type by --content-type, such as text/plain."
        ) from error


def _parse_header(text: str) -> tuple[str, str]:
    name, equals_sign, value = text.partition("=")
    if not equals_sign or not name:
        raise click.UsageError(f"A header is NAME=VALUE, not {quote(text)}.")
    return name, value
