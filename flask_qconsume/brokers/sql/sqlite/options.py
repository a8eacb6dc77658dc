"""The URL of a file, and the transport options of SQLite."""

from __future__ import annotations

import pathlib
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote
from urllib.parse import urlsplit

from ....errors import ConfigurationError
from ....settings import Settings
from ....settings import suggest
from ....text import quote

_NAMES = ("min_free_space", "synchronous")
_SYNCHRONOUS = ("full", "normal")


@dataclass(frozen=True)
class SqliteOptions:
    """The transport options."""

    #: ``full``: each commit waits for the disk. ``normal``: a crash of the machine,
    #: unlike that of a process, may lose the latest commits.
    synchronous: str = "full"
    #: Bytes that must be free on the disk for publishing. An acknowledgement needs
    #: free space, too, since it is written to the log first.
    min_free_space: int = 16 * 1024 * 1024


def read_options(options: Mapping[str, t.Any]) -> SqliteOptions:
    """Check the transport options, and return them with their defaults.

    :raises ConfigurationError: for an unknown option or a wrong value.
    """
    for name in options:
        if name not in _NAMES:
            raise ConfigurationError(
                f"'QCONSUME_TRANSPORT_OPTIONS' has '{name}', which is not an option for"
                f" SQLite{suggest(name, _NAMES)} There are: {', '.join(_NAMES)}."
            )
    found = SqliteOptions(**options)
    if found.synchronous not in _SYNCHRONOUS:
        raise _refuse("synchronous", found.synchronous, "'full' or 'normal'")
    if type(found.min_free_space) is not int or found.min_free_space < 0:
        raise _refuse("min_free_space", found.min_free_space, "a number of bytes")
    return found


def find_path(settings: Settings) -> pathlib.Path:
    """Return the file of ``sqlite:///file``; a relative path is in the instance folder.

    :raises ConfigurationError: for a URL that names no file.
    """
    parts = urlsplit(settings.broker_url)
    name = unquote(parts.path[1:])
    if parts.netloc or not name or name == ":memory:" or name.startswith("file:"):
        raise ConfigurationError(
            "'QCONSUME_BROKER_URL' names no file: write 'sqlite:///qconsume.db' for a"
            " file in the instance folder, or 'sqlite:////folder/qconsume.db'."
        )
    if parts.query or parts.fragment:
        raise ConfigurationError(
            "'QCONSUME_BROKER_URL' for SQLite is a path only. Options are in"
            " 'QCONSUME_TRANSPORT_OPTIONS'; in a file's name write '?' as '%3F' and"
            " '#' as '%23'."
        )
    return pathlib.Path(settings.instance_path, name)


def _refuse(name: str, value: object, kind: str) -> ConfigurationError:
    return ConfigurationError(
        f"'{name}' in 'QCONSUME_TRANSPORT_OPTIONS' must be {kind}, not {quote(value)}."
    )
