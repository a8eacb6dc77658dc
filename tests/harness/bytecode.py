"""Compiled modules, kept in pytest's cache if the environment forbids them elsewhere.

``PYTHONDONTWRITEBYTECODE`` keeps compiled files away from the sources. Each worker and
each program that a test starts would then compile all modules again, which takes more
than a fourth of the processor time of the quick tests.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import tempfile

import pytest


def keep_compiled_modules(config: pytest.Config) -> None:
    """Have this process, and those that it starts, keep what they compile."""
    if not sys.dont_write_bytecode:
        return
    folder = config.rootpath / ".pytest_cache" / "d" / "compiled"
    _remove_modules_of_earlier_tests(folder)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(folder)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def _remove_modules_of_earlier_tests(folder: pathlib.Path) -> None:
    """Remove what was compiled in pytest's temporary folders; each run has new ones."""
    temporary = pathlib.Path(tempfile.gettempdir()).resolve().relative_to("/")
    for each in (folder / temporary).glob("pytest-of-*"):
        shutil.rmtree(each, ignore_errors=True)
