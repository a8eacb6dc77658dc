"""``python -m tests.fuzz [TARGET …] [--seconds N]``: looks for what breaks a target.

Needs ``atheris``. Each target has a process of its own, which begins with the seeds in
``tests/fuzz/seeds`` and with what earlier runs found, in ``.fuzz``. What breaks a
target is written there as ``crash-…`` (or ``timeout-…``), and the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
FOUND = HERE.parents[1] / ".fuzz"
NAMES = (
    *("amqp", "rabbitmq", "redis", "redis-streams", "kafka", "bodies", "json", "costs"),
    *("texts", "settings", "keys", "patterns", "times", "delays"),
    *("publishing", "properties"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=int, default=60, help="for each of them")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    for name in given.targets:
        if name not in NAMES:
            parser.error(f"there is no target '{name}'; there are: {', '.join(NAMES)}")
    if given.alone:
        fuzz(given.targets[0], given.seconds)
    failed = [name for name in given.targets or NAMES if run(name, given.seconds)]
    if failed:
        print(
            f"Broken: {', '.join(failed)}. See {FOUND} and 'Fuzzing' in CONTRIBUTING."
        )
    return 1 if failed else 0


def run(name: str, seconds: int) -> int:
    """Fuzz one target in a process of its own; not zero if something broke it."""
    print(f"== {name}", flush=True)
    command = [sys.executable, "-m", __spec__.parent, name]
    return subprocess.call([*command, "--alone", "--seconds", str(seconds)])


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one target in this process, and exit."""
    import atheris

    with atheris.instrument_imports(include=["flask_qconsume", "amqp", "tests.fuzz"]):
        from .targets import TARGETS
    target, found, seeds = TARGETS[name], FOUND / name, HERE / "seeds" / name

    def kept(data: bytes) -> None:
        try:
            target(data)
        except BaseException:
            # The fuzzer itself leaves nothing behind where a seed is broken already.
            digest = hashlib.sha256(data).hexdigest()[:12]
            (found / f"crash-{digest}").write_bytes(data)
            raise

    found.mkdir(parents=True, exist_ok=True)
    seeds.mkdir(parents=True, exist_ok=True)
    options = (
        f"-max_total_time={seconds}",
        "-timeout=20",
        "-max_len=2048",
        "-verbosity=0",
        "-print_final_stats=1",
        f"-artifact_prefix={found}/",
    )
    atheris.Setup([name, *options, str(found), str(seeds)], kept)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
