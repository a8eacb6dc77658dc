"""The result of a run: figures that are written as JSON, and its failures."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field


@dataclass
class FaultRecord:
    """One fault, and its effects until the next fault."""

    #: Position in the run, from 0.
    index: int
    name: str
    may_lose: bool
    #: Seconds from the start of the run to its beginning, and its duration in seconds.
    began: float
    lasted: float
    #: Seconds from its end until every worker handled a message that was published
    #: after it, or ``None`` for never; and the limit for these seconds.
    resumed: float | None
    allowed: float
    #: Seconds until a client noticed it, if the fault measures that.
    noticed: float | None = None
    #: Text about an expected effect that did not come.
    problem: str = ""
    #: How often all messages in flight may be handled again because of it.
    returns: int = 1
    #: The longest time without a handled message, in seconds.
    silence: float = 0.0
    #: Messages that were confirmed from its beginning on.
    messages: int = 0
    refused: int = 0
    lost: int = 0
    #: Messages that were handled again, and the limit for them.
    duplicated: int = 0
    bound: int = 0

    def failures(self) -> Iterator[str]:
        """Describe its failures."""
        if self.problem:
            yield self.problem
        if self.lost and not self.may_lose:
            yield f"{self.lost} lost"
        if self.resumed is None:
            yield "a worker did not resume consuming"
        elif self.resumed > self.allowed:
            yield (
                f"consuming resumed after {self.resumed:.1f} s,"
                f" {self.allowed:g} s are allowed"
            )
        # A replica that is behind lacks the last acknowledgements too.
        if self.duplicated > self.bound and not self.may_lose:
            yield f"{self.duplicated} handled again, {self.bound} may be"


@dataclass
class RunRecord:
    """One run on one broker."""

    broker: str
    title: str
    seed: int
    #: The command that repeats the run.
    command: str
    versions: dict[str, str]
    seconds: float = 0.0
    workers: int = 0
    messages: int = 0
    refused: int = 0
    lost: int = 0
    duplicated: int = 0
    #: ``None`` if no order is promised.
    reordered: int | None = None
    #: Dead letters that the run asked for, and unexpected ones.
    dead_expected: int = 0
    dead: int = 0
    #: Confirmed, not handled, and still in the broker's queue when the run gave up.
    stuck: int = 0
    silence: float = 0.0
    faults: list[FaultRecord] = field(default_factory=list)
    #: Other failures.
    problems: list[str] = field(default_factory=list)

    def failures(self) -> list[str]:
        """Describe all failures; a good run has none."""
        found = [
            f"fault {each.index} ({each.name}): {text}"
            for each in self.faults
            for text in each.failures()
        ]
        if self.lost and not self.faults:
            found.append(f"{self.lost} lost without any fault")
        if self.reordered:
            found.append(f"{self.reordered} out of order")
        if self.dead:
            found.append(f"{self.dead} unexpected dead letters")
        if self.stuck:
            found.append(f"{self.stuck} stuck in the queue")
        return found + self.problems

    def write(self, folder: pathlib.Path) -> pathlib.Path:
        """Write the record as ``BROKER.json``, and return the path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.broker}.json"
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")
        return path

    @classmethod
    def read(cls, path: pathlib.Path) -> RunRecord:
        """Read a record that :meth:`write` wrote."""
        found: dict[str, t.Any] = json.loads(path.read_text("utf-8"))
        faults = [FaultRecord(**each) for each in found.pop("faults")]
        return cls(**found, faults=faults)
