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

_file: int | None = None


def note(what: str, n: t.Any, attempt: int) -> None:
    """Write one line. A short append is atomic, so many processes may do it."""
    global _file
    if _file is None:
        _file = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    line = json.dumps([what, n, attempt, os.getpid(), time.time()]) + "\n"
    os.write(_file, line.encode())


@dataclass(frozen=True)
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
        with self.path.open() as file:
            file.seek(self._at)
            while line := file.readline():
                if not line.endswith("\n"):
                    break
                self._read.append(Line(*json.loads(line)))
                self._at = file.tell()
        return self._read

    def counted(self, what: str = "done") -> Counter[t.Any]:
        """How often each number stands in lines of one kind."""
        return Counter(line.n for line in self.lines(what))
