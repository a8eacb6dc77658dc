"""The file that a URL of SQLite names."""

from __future__ import annotations

import pathlib
from urllib.parse import unquote
from urllib.parse import urlsplit

from ....errors import ConfigurationError
from ....settings import Settings


def find_path(settings: Settings) -> pathlib.Path:
    """Return the file of ``sqlite:///file``; a relative path is in the instance folder.

    :raises ConfigurationError: for a URL that names no file.
    """
    parts = urlsplit(settings.broker_url)
    name = unquote(parts.path[1:])
    if parts.netloc or not name or name == ":memory:":
        raise ConfigurationError(
            "'QCONSUME_BROKER_URL' names no file: write 'sqlite:///qconsume.db' for a"
            " file in the instance folder, or 'sqlite:////folder/qconsume.db'."
        )
    return pathlib.Path(settings.instance_path, name)
