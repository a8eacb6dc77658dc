"""A small file system of a test's own, which it may fill."""

from __future__ import annotations

import contextlib
import errno
import pathlib
import subprocess
import tempfile
import typing as t

#: Bytes that are written at once to fill a disk.
_BLOCK = bytes(4_096)


class SmallDisk:
    """A file system of some megabytes in memory; only root may mount one.

    Its folder is not below the folders of the tests, which other users cannot pass.
    """

    def __init__(self, megabytes: int) -> None:
        self._megabytes = megabytes
        self._parent = tempfile.TemporaryDirectory(prefix="small-disk-")
        pathlib.Path(self._parent.name).chmod(0o711)
        self.folder = pathlib.Path(self._parent.name, "disk")
        self.folder.mkdir()

    @classmethod
    @contextlib.contextmanager
    def mounted(cls, megabytes: int) -> t.Iterator[SmallDisk | None]:
        """Mount one for a block, or return ``None`` if it cannot be mounted."""
        if cls.missing() is not None:
            yield None
            return
        with cls(megabytes) as disk:
            yield disk

    @classmethod
    def missing(cls) -> str | None:
        """Return why none can be mounted, or ``None`` if one can."""
        try:
            with cls(1):
                return None
        except (OSError, subprocess.CalledProcessError):
            return "only root may mount a file system"

    @contextlib.contextmanager
    def full(self) -> t.Iterator[None]:
        """Fill what is free for the length of a block."""
        rest = self.folder / "rest"
        with rest.open("wb", buffering=0) as file, contextlib.ExitStack() as stack:
            stack.callback(rest.unlink)
            while _has_room(file):
                pass
            yield

    def __enter__(self) -> SmallDisk:
        options = f"size={self._megabytes}m"
        try:
            _call("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder))
        except BaseException:
            self._parent.cleanup()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        _call("umount", "--lazy", str(self.folder))
        self._parent.cleanup()


def _has_room(file: t.IO[bytes]) -> bool:
    try:
        return file.write(_BLOCK) > 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
