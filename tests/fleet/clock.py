"""A wall clock of a process's own, which a test sets while the process runs.

By libfaketime (Debian's package ``faketime``): the times that a process is told, and by
how much its files' are apart from them, are as on a machine whose clock was set. The
monotonic clock goes on as it does there.
"""

from __future__ import annotations

import pathlib

#: Where Debian puts it, on any architecture.
_PLACES = "/usr/lib/*/faketime/libfaketimeMT.so.1"


class Clock:
    """Begins with the machine's own time."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self.step(0)

    @staticmethod
    def missing() -> str | None:
        """Why there is none to be had here, or `None` where there is."""
        return None if _library() else "no libfaketime: apt-get install faketime"

    def step(self, seconds: float) -> None:
        """Set it to so much after the machine's own time, or before it."""
        draft = self._path.with_suffix(".draft")
        draft.write_text(f"{seconds:+f}\n")
        draft.replace(self._path)

    def environment(self) -> dict[str, str]:
        """What a process must be started with."""
        return {
            # The C library's own allocator, since jemalloc, which Redis uses, asks for
            # the time before there is one that can be faked.
            "LD_PRELOAD": f"{_library()} libc.so.6",
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_RESET": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


def _library() -> pathlib.Path | None:
    return next(iter(sorted(pathlib.Path("/").glob(_PLACES[1:]))), None)
