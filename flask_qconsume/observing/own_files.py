"""The files of this process in a metric folder: its numbers, its gauges, and its lock.

The process counts in a mapping of its file. If the file is deleted, the mapping stays,
and the numbers are copied into a new file once a second, so that a folder which was
cleaned up shows them again.
"""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import secrets
from collections.abc import Iterable

from ..native_threads import get_unpatched
from .series import Series
from .value_file import ValueFile

VALUES = ".values"
GAUGES = ".gauges"

#: The suffix of a file that is not complete yet.
NEW = ".new"


class OwnFiles:
    """The files of this process in a metric folder."""

    def __init__(self, values: ValueFile, path: pathlib.Path, lock: int) -> None:
        self.values = values
        self.path = path
        #: The open file that is locked.
        self._lock = lock
        #: Whether the numbers are copied into the file, since the first one is deleted.
        self._copies = False
        # Also used in native threads, and never waited for.
        self._restoring = get_unpatched("_thread", "allocate_lock")()

    def leave_to_parent(self) -> None:
        """In a forked child: close the files, of which one holds the parent's lock."""
        os.close(self._lock)
        self.values.close()

    def restore(self) -> None:
        """If the file of the numbers was deleted, keep a copy of them in its place.

        Call it about once a second, since the copy is only as new as the last call.

        :raises OSError: if the folder cannot be written, or the disk is full.
        """
        if not self._restoring.acquire(False):
            return
        try:
            if not self.path.exists():
                self._create_copy()
            elif self._copies:
                self.values.copy_to(self._lock)
        finally:
            self._restoring.release()

    def _create_copy(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = create_locked(self.path.with_suffix(NEW))
        try:
            self.values.copy_to(lock)
            self.path.with_suffix(NEW).rename(self.path)
        except BaseException:
            discard(lock, self.path.with_suffix(NEW))
            raise
        os.close(self._lock)
        self._lock, self._copies = lock, True

    def write_gauges(self, source: str, series: Iterable[Series]) -> None:
        """Replace the gauges of one source.

        :raises OSError: if the folder cannot be written.
        """
        path = self.path.with_suffix(f".{source}{GAUGES}")
        rows = [(each.name, each.labels, each.values) for each in series]
        replace(path, json.dumps(rows))


def create_locked(path: pathlib.Path) -> int:
    """Create a file, and lock it for as long as this process lives.

    :raises OSError: if the folder cannot be written.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        discard(lock, path)
        raise
    return lock


def discard(descriptor: int, path: pathlib.Path) -> None:
    """Close a file, and delete it."""
    os.close(descriptor)
    path.unlink(missing_ok=True)


def replace(path: pathlib.Path, text: str) -> None:
    """Write a file in one step: a reader sees its old content or its new one.

    :raises OSError: if the folder cannot be written, or the disk is full.
    """
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}{NEW}")
    try:
        new.write_text(text)
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
