"""A lock that one process of a host holds, for work that only one of them should do."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib

from ..first_use import ForkGuard


class HostLock:
    """A lock on a file; the kernel releases it when the process ends or is killed.

    :param path: The file, which is created on first use.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._fork_guard = ForkGuard()

    def acquire(self) -> bool:
        """Try to get the lock; return whether this process holds it. Never wait.

        :raises OSError: if the file cannot be created.
        """
        if self._descriptor is not None:
            if self._is_in_place(self._descriptor):
                return True
            self.release()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                return False
            raise
        self._descriptor = descriptor
        return True

    def _is_in_place(self, descriptor: int) -> bool:
        """Return whether the file is the one that other processes try to lock."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Release the lock, if this process holds it.

        Call this in a forked child, too: the child would keep the lock after the end of
        its parent. The parent keeps the lock.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                if not self._fork_guard.is_forked:
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)
