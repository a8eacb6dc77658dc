"""The ledger: a file of events that outlives the processes that write it."""

from __future__ import annotations

import json
import os
import pathlib
import time
import typing as t
from collections import Counter
from dataclasses import dataclass

LEDGER = "FLEET_LEDGER"

_writer: Writer | None = None


class Writer:
    """Writer of a ledger's lines."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, what: str, n: t.Any, attempt: int = 0) -> None:
        """Append one line. A short append is atomic, so many processes can write."""
        line = json.dumps([what, n, attempt, os.getpid(), time.time()]) + "\n"
        os.write(self._file, line.encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def note(what: str, n: t.Any, attempt: int) -> None:
    """Write one line to the ledger that the environment names."""
    global _writer
    if _writer is None:
        _writer = Writer(os.environ[LEDGER])
    _writer.note(what, n, attempt)


@dataclass(frozen=True, slots=True)
class Line:
    """One event."""

    what: str
    n: t.Any
    attempt: int
    pid: int
    at: float


class Ledger:
    """Reader of a ledger."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.path.touch()
        self._read: list[Line] = []
        self._at = 0

    def lines(self, what: str = "done") -> list[Line]:
        """Return all lines of one kind so far."""
        return [line for line in self.everything() if line.what == what]

    def everything(self) -> list[Line]:
        """Return the lines of all processes so far, in the order of writing."""
        self._read.extend(self.fresh())
        return self._read

    def fresh(self) -> t.Iterator[Line]:
        """Yield the lines written since the last call."""
        with self.path.open("rb") as file:
            file.seek(self._at)
            while line := file.readline():
                if not line.endswith(b"\n"):
                    break
                self._at += len(line)
                yield Line(*json.loads(line))

    def counted(self, what: str = "done") -> Counter[t.Any]:
        """Count the lines of one kind for each number."""
        return Counter(line.n for line in self.lines(what))
