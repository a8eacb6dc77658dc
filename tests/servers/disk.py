"""A small file system of a test's own, which it may fill."""

from __future__ import annotations

import contextlib
import errno
import pathlib
import subprocess
import typing as t

#: Bytes that are written at once to fill a disk.
_BLOCK = bytes(4_096)


class SmallDisk:
    """A file system of some bytes in memory, which only root may mount."""

    def __init__(self, folder: pathlib.Path, megabytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._megabytes = megabytes

    @contextlib.contextmanager
    def full(self) -> t.Iterator[None]:
        """Fill what is free for the length of a block."""
        rest = self.folder / "rest"
        with rest.open("wb", buffering=0) as file, contextlib.ExitStack() as stack:
            stack.callback(rest.unlink)
            while _is_room(file):
                pass
            yield

    def __enter__(self) -> SmallDisk:
        options = f"size={self._megabytes}m"
        _call("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder))
        return self

    def __exit__(self, *exc: object) -> None:
        _call("umount", "--lazy", str(self.folder))

    @classmethod
    def missing(cls, folder: pathlib.Path) -> str | None:
        """Return why none can be mounted in a folder, or ``None`` if one can."""
        try:
            with cls(folder / "probe", 1):
                return None
        except (OSError, subprocess.CalledProcessError):
            return "only root may mount a file system"


def _is_room(file: t.IO[bytes]) -> bool:
    try:
        return file.write(_BLOCK) > 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
