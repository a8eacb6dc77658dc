"""Look up the known vulnerabilities of all that the package and its extras bring.

The list of them is at the package index. Where that cannot be reached, nothing was
audited: this says so and ends with 2. It ends with 1 if something is vulnerable.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
import typing as t
from importlib.metadata import distribution

from packaging.requirements import Requirement

PACKAGE = "Flask-QConsume"
EXTRAS = ("redis", "protobuf", "kafka", "gunicorn", "logs", "speed", "sql")


def main() -> None:
    pinned = sorted(brought())
    found = audited(pinned)
    skipped = {each["name"]: each["skip_reason"] for each in found if skips(each)}
    if skipped or len(found) < len(pinned):
        reason = next(iter(skipped.values()), "some were left out")
        fail(2, f"NOT AUDITED, {len(skipped)} of {len(pinned)} packages: {reason}")
    vulnerable = [each for each in found if each["vulns"]]
    for each in vulnerable:
        ids = ", ".join(vuln["id"] for vuln in each["vulns"])
        print(f"{each['name']} {each['version']}: {ids}")
    if vulnerable:
        fail(1, f"{len(vulnerable)} of {len(pinned)} packages are vulnerable")
    print(f"{len(pinned)} packages, no known vulnerabilities")


def brought() -> set[str]:
    """What is installed because the package asks for it, as ``name==version``."""
    found: dict[str, str] = {}
    waiting = [(PACKAGE, EXTRAS)]
    while waiting:
        name, extras = waiting.pop()
        for text in distribution(name).requires or ():
            needed = Requirement(text)
            if needed.name not in found and applies(needed, extras):
                found[needed.name] = distribution(needed.name).version
                waiting.append((needed.name, tuple(needed.extras)))
    return {f"{name}=={version}" for name, version in found.items()}


def applies(needed: Requirement, extras: t.Sequence[str]) -> bool:
    marker = needed.marker
    return marker is None or any(marker.evaluate({"extra": e}) for e in ("", *extras))


def audited(pinned: t.Sequence[str]) -> list[dict[str, t.Any]]:
    """What pip-audit says of each."""
    with tempfile.TemporaryDirectory() as scratch:
        listed = pathlib.Path(scratch, "pinned.txt")
        listed.write_text("\n".join(pinned))
        options = ["--disable-pip", "--no-deps", "--progress-spinner=off"]
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *options, "-f=json", f"-r={listed}"],
            capture_output=True,
            text=True,
        )
    try:
        return t.cast(list[dict[str, t.Any]], json.loads(done.stdout)["dependencies"])
    except (ValueError, LookupError):
        said = done.stderr.strip().splitlines() or ["pip-audit said nothing"]
        fail(2, f"NOT AUDITED: {said[-1]}")


def skips(found: t.Mapping[str, t.Any]) -> bool:
    return "skip_reason" in found


def fail(code: int, text: str) -> t.NoReturn:
    print(text, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
