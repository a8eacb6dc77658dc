"""Program of a pytest-xdist worker: gevent patches, then execnet takes over.

pytest-xdist starts it as ``python worker.py -u -c CODE``; the code reads execnet's own
program from the standard input and runs it. Tests run on the main greenlet, as they do
without workers. Must not import the package.
"""

from __future__ import annotations

import os
import sys

import gevent
from gevent import monkey
from gevent.fileobject import FileObject

_fdopen = os.fdopen


class Input:
    """Messages of the controlling process, read without blocking other greenlets.

    execnet reads them in a thread, which is a greenlet here.
    """

    def __init__(self, descriptor: int) -> None:
        self._file = FileObject(descriptor, "rb", buffering=0)

    def read(self, size: int) -> bytes:
        """Return at most this many bytes.

        Some tests throw exceptions into all greenlets; this one goes on.
        """
        while True:
            try:
                return bytes(self._file.read(size))
            except (gevent.GreenletExit, gevent.Timeout):
                continue

    def close(self) -> None:
        self._file.close()


def main() -> None:
    monkey.patch_all()
    sys.path[0] = ""
    os.fdopen = _open_input
    exec(sys.argv[-1], vars(sys.modules["__main__"]))


def _open_input(descriptor: int, *args: object, **kwargs: object) -> Input:
    """Stand in for `os.fdopen` once: the first file that execnet opens is its input."""
    os.fdopen = _fdopen
    os.register_at_fork(after_in_child=lambda: _replace_by_silent_pipe(descriptor))
    return Input(descriptor)


def _replace_by_silent_pipe(descriptor: int) -> None:
    """Keep a child that a test forks from reading its parent's messages."""
    os.dup2(os.pipe()[0], descriptor)


if __name__ == "__main__":
    main()
