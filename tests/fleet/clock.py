"""A wall clock for one process, which a test can set while the process runs.

libfaketime (Debian's package ``faketime``) shifts the process's time and the times of
files that it sees, as on a machine whose clock was set. The monotonic clock is real.
"""

from __future__ import annotations

import pathlib

#: The library's path on Debian, for any architecture.
_LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"


class Clock:
    """A clock that starts with the machine's time."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self.step(0)

    @staticmethod
    def missing() -> str | None:
        """Return why libfaketime is missing, or ``None`` if it is installed."""
        return None if _library() else "no libfaketime: apt-get install faketime"

    def step(self, seconds: float) -> None:
        """Set the clock to the machine's time plus ``seconds``."""
        draft = self._path.with_suffix(".draft")
        draft.write_text(f"{seconds:+f}\n")
        draft.replace(self._path)

    def environment(self) -> dict[str, str]:
        """Return the environment with which a process must be started."""
        return {
            # The C library comes first for its allocator: Redis's jemalloc asks for the
            # time before libfaketime is ready.
            "LD_PRELOAD": f"{_library()} libc.so.6",
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_RESET": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


def _library() -> pathlib.Path | None:
    return next(iter(sorted(pathlib.Path("/").glob(_LIBRARY[1:]))), None)
