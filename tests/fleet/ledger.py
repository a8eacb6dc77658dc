"""What was done, line by line, in a file that outlives whoever writes it."""

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
    """Adds lines to a ledger."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, what: str, n: t.Any, attempt: int = 0) -> None:
        """Write one line. A short append is atomic, so many processes may do it."""
        line = json.dumps([what, n, attempt, os.getpid(), time.time()]) + "\n"
        os.write(self._file, line.encode())

    def close(self) -> None:
        """Write no more."""
        os.close(self._file)


def note(what: str, n: t.Any, attempt: int) -> None:
    """Write one line, to the ledger that the environment names."""
    global _writer
    if _writer is None:
        _writer = Writer(os.environ[LEDGER])
    _writer.note(what, n, attempt)


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened."""

    what: str
    n: t.Any
    attempt: int
    pid: int
    at: float


class Ledger:
    """Reads what the processes wrote."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.path.touch()
        self._read: list[Line] = []
        self._at = 0

    def lines(self, what: str = "done") -> list[Line]:
        """All lines of one kind so far."""
        return [line for line in self.everything() if line.what == what]

    def everything(self) -> list[Line]:
        """All lines so far, in the order they were written, whoever wrote them."""
        self._read.extend(self.fresh())
        return self._read

    def fresh(self) -> t.Iterator[Line]:
        """What was written since the last look, which nobody else gets any more."""
        with self.path.open("rb") as file:
            file.seek(self._at)
            while line := file.readline():
                if not line.endswith(b"\n"):
                    break
                self._at += len(line)
                yield Line(*json.loads(line))

    def counted(self, what: str = "done") -> Counter[t.Any]:
        """How often each number stands in lines of one kind."""
        return Counter(line.n for line in self.lines(what))
