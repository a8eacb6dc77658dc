"""The broker for ``sqlite:///file``: tables in a file, for one host."""

from .broker import Sqlite

__all__ = ["Sqlite"]
