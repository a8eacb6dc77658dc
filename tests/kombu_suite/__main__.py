"""Fetch kombu's tests and run them: ``python -m tests.kombu_suite``.

Arguments are pytest's; all modules are run unless some are named.
"""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).parent
RUN = [sys.executable, "-m", "gevent.monkey", "--module", "pytest"]


def main(arguments: list[str]) -> int:
    """Run the tests.

    :returns: pytest's exit code.
    """
    if not any("over_" in each for each in arguments):
        arguments = [*map(str, sorted(HERE.glob("over_*.py"))), *arguments]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{os.getcwd()}{os.pathsep}{_fetch_tests(pathlib.Path(folder))}"
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.call([*RUN, *arguments], env=environment)


def _fetch_tests(folder: pathlib.Path) -> pathlib.Path:
    """Download and unpack the source distribution of the installed kombu."""
    version = importlib.metadata.version("kombu")
    wanted = ["--no-deps", "--no-binary", "kombu", f"kombu=={version}"]
    download = [sys.executable, "-m", "pip", "download", "--quiet", *wanted]
    subprocess.run([*download, "--dest", str(folder)], check=True)
    (archive,) = folder.glob("kombu-*.tar.gz")
    with tarfile.open(archive) as packed:
        tests = [m for m in packed if "/t/" in m.name and m.name.endswith(".py")]
        packed.extractall(folder, members=tests)
    # Only tests were unpacked: the kombu under test is the installed one.
    return folder / f"kombu-{version}"


sys.exit(main(sys.argv[1:]))
