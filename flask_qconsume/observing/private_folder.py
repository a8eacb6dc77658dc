"""The metric folder of processes that one parent starts, named by the environment.

The parent chooses the name, and the first process that counts creates the folder: it
may run as a different user. The parent holds a lock on a file beside the folder, so
that the folder of a parent that was killed can be removed by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import pathlib
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator

from .metric_folder import MetricFolder
from .metrics import FOLDER_VARIABLE

#: In memory: writing to a disk could make a process wait.
_MEMORY = "/dev/shm"

_PREFIX = "qconsume-metrics-"

#: The suffix of the file whose lock the parents of processes hold.
_LOCK = ".lock"

#: How many folders are looked at. Others may have filled the parent folder.
_MAX_LEFTOVERS = 1_000

#: The locks that this process holds, shared with the processes that it forks: file
#: descriptors by the path of the folder.
_locks: dict[str, int] = {}


def offer_private_folder() -> None:
    """Name a folder for the children of this process, unless there is one already.

    Remove the folders that parents of the same user have left, since they were killed.
    """
    if not os.environ.get(FOLDER_VARIABLE):
        parent = _MEMORY if os.access(_MEMORY, os.W_OK) else tempfile.gettempdir()
        _remove_leftovers(pathlib.Path(parent))
        name = f"{_PREFIX}{secrets.token_hex(8)}"
        os.environ[FOLDER_VARIABLE] = str(pathlib.Path(parent, name))
    path = os.environ[FOLDER_VARIABLE]
    if path not in _locks:
        with contextlib.suppress(OSError):  # A full disk; then nothing is removed.
            _locks[path] = _lock(pathlib.Path(path + _LOCK), fcntl.LOCK_SH)


def remove_private_folder() -> None:
    """Remove the folder, unless a process still counts there.

    A server that replaced this one may have inherited the folder.
    """
    path = os.environ.pop(FOLDER_VARIABLE, "")
    if path and not _has_living_processes(pathlib.Path(path)):
        _remove(pathlib.Path(path))
    lock = _locks.pop(path, None)
    if lock is not None:
        os.close(lock)


def _remove_leftovers(parent: pathlib.Path) -> None:
    """Remove the folders of killed parents, if no process counts there any more."""
    for lock in itertools.islice(_find_locks(parent), _MAX_LEFTOVERS):
        folder = lock.with_suffix("")
        with contextlib.suppress(OSError):
            descriptor = _lock(lock, fcntl.LOCK_EX)
            try:
                if not _has_living_processes(folder):
                    _remove(folder)
            finally:
                os.close(descriptor)


def _has_living_processes(folder: pathlib.Path) -> bool:
    """Return whether a process still counts in a folder, or in that of one app."""
    return any(
        MetricFolder(str(each), lambda text: None).has_living_processes()
        for each in (folder, *folder.glob("*/"))
    )


def _find_locks(parent: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield the lock files of this user; others may write into the parent folder."""
    for path in parent.glob(f"{_PREFIX}*{_LOCK}"):
        with contextlib.suppress(OSError):
            found = path.lstat()
            if found.st_uid == os.geteuid() and stat.S_ISREG(found.st_mode):
                yield path


def _lock(path: pathlib.Path, kind: int) -> int:
    """Lock a file, and return its descriptor.

    :raises OSError: if the file cannot be created, or another process has locked it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove(folder: pathlib.Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.with_suffix(_LOCK).unlink()
