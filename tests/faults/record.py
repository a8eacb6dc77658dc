"""What a run has found: figures to be written as JSON, and what is wrong with them."""

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
    """One fault, and what it did until the next one."""

    #: Its place in the run, from 0 up.
    index: int
    name: str
    told_loss: bool
    #: Seconds from the start of the run, and how long it lasted.
    began: float
    lasted: float
    #: Seconds from its end until every worker handled something that was published
    #: after it; ``None`` if that never came. And how many that may be.
    resumed: float | None
    allowed: float
    #: Seconds until it was noticed, where it measures that.
    noticed: float | None = None
    #: What did not come that it waited for, in words.
    problem: str = ""
    #: How often as much as is in flight may be handled again because of it.
    returns: int = 1
    #: The longest time in which nothing was handled at all, in seconds.
    silence: float = 0.0
    #: Of the messages confirmed from its beginning on.
    messages: int = 0
    refused: int = 0
    lost: int = 0
    #: How often something was handled again, and how often that may be.
    duplicated: int = 0
    bound: int = 0

    def failures(self) -> Iterator[str]:
        """What is wrong with it, in words."""
        if self.problem:
            yield self.problem
        if self.lost and not self.told_loss:
            yield f"{self.lost} lost"
        if self.resumed is None:
            yield "a worker did not go on consuming"
        elif self.resumed > self.allowed:
            yield f"went on after {self.resumed:.1f} s, {self.allowed:g} s are allowed"
        # A replica that is behind has not heard of what was acknowledged either.
        if self.duplicated > self.bound and not self.told_loss:
            yield f"{self.duplicated} handled again, {self.bound} may be"


@dataclass
class RunRecord:
    """One run on one broker."""

    place: str
    title: str
    seed: int
    #: The command that runs it again.
    command: str
    versions: dict[str, str]
    seconds: float = 0.0
    workers: int = 0
    messages: int = 0
    refused: int = 0
    lost: int = 0
    duplicated: int = 0
    #: ``None`` where no order is promised.
    reordered: int | None = None
    #: Dead letters of messages that were told to become some, and of others.
    dead_told: int = 0
    dead: int = 0
    #: Confirmed, not handled, and still in the broker's queue when the run gave up.
    stuck: int = 0
    silence: float = 0.0
    faults: list[FaultRecord] = field(default_factory=list)
    #: What else went wrong, in words.
    problems: list[str] = field(default_factory=list)

    def failures(self) -> list[str]:
        """All that is wrong, in words; nothing at all is a good run."""
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
            found.append(f"{self.dead} dead letters that nobody asked for")
        if self.stuck:
            found.append(f"{self.stuck} stuck in the queue")
        return found + self.problems

    def write(self, folder: pathlib.Path) -> pathlib.Path:
        """Write it as ``PLACE.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.place}.json"
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")
        return path

    @classmethod
    def read(cls, path: pathlib.Path) -> RunRecord:
        """Read what :meth:`write` wrote."""
        found: dict[str, t.Any] = json.loads(path.read_text("utf-8"))
        faults = [FaultRecord(**each) for each in found.pop("faults")]
        return cls(**found, faults=faults)
