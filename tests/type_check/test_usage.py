"""What users write has types; where mypy is installed, it reads a sample of it."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.process
def test_the_sample_is_typed_and_its_mistakes_are_found() -> None:
    pytest.importorskip("mypy", reason="mypy is not installed; 'tox -e typing' has it")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "tests/type_check/usage.py"],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
