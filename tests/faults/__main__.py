"""The command: ``python -m tests.faults [PLACES...]``, see ``--help``."""

from __future__ import annotations

import argparse
import pathlib
import random
import signal
import sys
import tempfile
import typing as t
from collections.abc import Sequence
from dataclasses import dataclass

from . import catalogue
from .fault import Fault
from .places import PLACES
from .places import opened
from .record import RunRecord
from .run import Plan
from .run import Run


@dataclass(frozen=True)
class Profile:
    """How much a run does at each place."""

    #: How many faults; 0 is those of the short profile.
    faults: int
    messages: int


PROFILES = {
    "short": Profile(faults=0, messages=2_000),
    "medium": Profile(faults=20, messages=20_000),
    # All places together: 222 faults, and somewhat more than a million messages.
    "long": Profile(faults=35, messages=150_000),
}


_NAMES = ", ".join(PLACES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the faults at each place, and return 1 if something is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    given.places = given.places or list(PLACES)
    if unknown := set(given.places) - PLACES.keys():
        parser.error(f"no such place: {', '.join(unknown)}; there are {_NAMES}")
    if given.list:
        _list(given.places)
        return 0
    # Whatever ends us, brokers and workers end with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seed = random.randrange(10**6) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    bad = [place for place in given.places if not _run(place, seed, given)]
    print(f"seed {seed}: " + (f"NOT good: {', '.join(bad)}" if bad else "good"))
    return 1 if bad else 0


def _run(place: str, seed: int, given: argparse.Namespace) -> bool:
    plan = Plan(
        seed=seed,
        faults=_faults(place, seed, given),
        messages=given.messages or PROFILES[given.profile].messages,
        command=_command(place, seed, given),
    )
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"faults-{place}-"))
    with opened(place, folder / "broker") as found:
        record = Run(found, plan, folder / "run", _say).go()
    path = record.write(given.out)
    report(record)
    print(f"{path}; ledgers and logs: {folder}\n", flush=True)
    return not record.failures()


def _faults(place: str, seed: int, given: argparse.Namespace) -> list[Fault]:
    if given.only:
        return catalogue.named(place, given.only)
    count = given.faults or PROFILES[given.profile].faults
    if count:
        return catalogue.drawn(place, seed, count)
    return catalogue.short(place, seed)


def _command(place: str, seed: int, given: argparse.Namespace) -> str:
    words = ["python -m tests.faults", place, f"--profile {given.profile}"]
    words += [f"--seed {seed}"]
    words += [f"--faults {given.faults}"] * bool(given.faults)
    words += [f"--messages {given.messages}"] * bool(given.messages)
    words += [f'--only "{name}"' for name in given.only]
    return " ".join(words)


def report(record: RunRecord, say: t.Callable[[str], object] = print) -> None:
    """Tell what a run has found."""
    say(
        f"{record.place}: {record.messages} messages, {record.refused} refused,"
        f" {len(record.faults)} faults, {record.lost} lost, {record.duplicated} handled"
        f" again, {record.reordered} out of order, {record.dead} dead letters,"
        f" {record.silence:.1f} s the longest silence, {record.seconds:.0f} s"
    )
    failures = record.failures()
    for failure in failures:
        say(f"  {failure}")
    if failures:
        say(f"  Again: {record.command}")


def _list(places: Sequence[str]) -> None:
    for place in places:
        print(place)
        for each in catalogue.faults_of(place):
            print(f"  {each.name}{' (short)' if each.short else ''}")


def _say(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Provoke faults on throwaway brokers, under load, and say what was"
        " lost, handled twice, out of order or stuck.",
    )
    parser.add_argument(
        "places", nargs="*", help=f"the brokers, all unless given: {_NAMES}"
    )
    parser.add_argument("--profile", choices=PROFILES, default="short")
    parser.add_argument("--seed", type=int, help="repeats a run; drawn if not given")
    parser.add_argument("--faults", type=int, default=0, help="how many, at each place")
    parser.add_argument("--messages", type=int, default=0, help="at least so many")
    parser.add_argument("--only", action="append", default=[], metavar="FAULT")
    parser.add_argument("--list", action="store_true", help="name the faults, and end")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("faults"),
        help="the folder of the records",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
