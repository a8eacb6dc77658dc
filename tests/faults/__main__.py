"""The command ``python -m tests.faults [BROKERS...]``; see ``--help``."""

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
from .record import RunRecord
from .run import Plan
from .run import Run
from .setups import SETUPS
from .setups import open_setup


@dataclass(frozen=True)
class Profile:
    """Size of the run on each broker."""

    #: Number of faults; 0 means the faults of the short profile.
    faults: int
    messages: int


PROFILES = {
    "short": Profile(faults=0, messages=2_000),
    "medium": Profile(faults=20, messages=20_000),
    # All brokers together: 222 faults, and somewhat more than a million messages.
    "long": Profile(faults=35, messages=150_000),
}


_NAMES = ", ".join(SETUPS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the faults on each broker; return 1 if a run failed, else 0."""
    parser = _make_parser()
    given = parser.parse_args(arguments)
    given.brokers = given.brokers or list(SETUPS)
    if unknown := set(given.brokers) - SETUPS.keys():
        parser.error(f"there is no broker {', '.join(unknown)}; choose from {_NAMES}")
    if given.list:
        _list(given.brokers)
        return 0
    # Exit regularly on SIGTERM, so that brokers and workers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seed = random.randrange(10**6) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    bad = [broker for broker in given.brokers if not _run(broker, seed, given)]
    print(f"seed {seed}: " + (f"failed on {', '.join(bad)}" if bad else "passed"))
    return 1 if bad else 0


def _run(broker: str, seed: int, given: argparse.Namespace) -> bool:
    plan = Plan(
        seed=seed,
        faults=_choose_faults(broker, seed, given),
        messages=given.messages or PROFILES[given.profile].messages,
        command=_format_command(broker, seed, given),
    )
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"faults-{broker}-"))
    with open_setup(broker, folder / "broker") as found:
        record = Run(found, plan, folder / "run", _say).execute()
    path = record.write(given.out)
    report(record)
    print(f"{path}; ledgers and logs: {folder}\n", flush=True)
    return not record.failures()


def _choose_faults(broker: str, seed: int, given: argparse.Namespace) -> list[Fault]:
    if given.only:
        return catalogue.pick(broker, given.only)
    count = given.faults or PROFILES[given.profile].faults
    if count:
        return catalogue.draw(broker, seed, count)
    return catalogue.draw_short(broker, seed)


def _format_command(broker: str, seed: int, given: argparse.Namespace) -> str:
    words = ["python -m tests.faults", broker, f"--profile {given.profile}"]
    words += [f"--seed {seed}"]
    words += [f"--faults {given.faults}"] * bool(given.faults)
    words += [f"--messages {given.messages}"] * bool(given.messages)
    words += [f'--only "{name}"' for name in given.only]
    return " ".join(words)


def report(record: RunRecord, say: t.Callable[[str], object] = print) -> None:
    """Print the result of a run."""
    say(
        f"{record.broker}: {record.messages} messages, {record.refused} refused,"
        f" {len(record.faults)} faults, {record.lost} lost, {record.duplicated} handled"
        f" again, {record.reordered} out of order, {record.dead} dead letters,"
        f" {record.silence:.1f} s longest silence, {record.seconds:.0f} s in all"
    )
    failures = record.failures()
    for failure in failures:
        say(f"  {failure}")
    if failures:
        say(f"  Repeat it: {record.command}")


def _list(brokers: Sequence[str]) -> None:
    for broker in brokers:
        print(broker)
        for each in catalogue.find_faults(broker):
            print(f"  {each.name}{' (short)' if each.short else ''}")


def _say(text: str) -> None:
    print(text, flush=True)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Provoke faults on throwaway brokers, under load, and report"
        " messages that were lost, handled twice, out of order or stuck.",
    )
    parser.add_argument(
        "brokers", nargs="*", help=f"the brokers; without any, all: {_NAMES}"
    )
    parser.add_argument("--profile", choices=PROFILES, default="short")
    parser.add_argument(
        "--seed", type=int, help="repeats the run with this seed; default: random"
    )
    parser.add_argument(
        "--faults", type=int, default=0, help="number of faults on each broker"
    )
    parser.add_argument(
        "--messages", type=int, default=0, help="least number of messages"
    )
    parser.add_argument("--only", action="append", default=[], metavar="FAULT")
    parser.add_argument("--list", action="store_true", help="list the faults, and exit")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("faults"),
        help="folder for the records",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
