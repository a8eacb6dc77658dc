"""A copy of what git tracks, the wheel that it builds, and environments for it."""

from __future__ import annotations

import pathlib
import shutil
import typing as t

import pytest

from ..test_repository import ROOT
from ..test_repository import tracked_files
from .environments import Environment
from .environments import uv

Install = t.Callable[..., Environment]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The project as a clone has it, and nothing that was built here."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in tracked_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def wheel(
    checkout: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--quiet", "--wheel", "--out-dir", str(folder), str(checkout))
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture
def install(wheel: pathlib.Path, tmp_path: pathlib.Path) -> Install:
    """Make an environment with the wheel and some of its extras."""

    def make(extras: str) -> Environment:
        environment = Environment(tmp_path / "environment")
        environment.install(f"{wheel}[{extras}]")
        return environment

    return make


@pytest.fixture
def install_lowest(
    wheel: pathlib.Path, checkout: pathlib.Path, tmp_path: pathlib.Path
) -> Install:
    """Do the same with the lowest versions that ``setup.cfg`` admits."""

    def make(extras: str) -> Environment:
        environment = Environment(tmp_path / "environment")
        options = [word for extra in extras.split(",") for word in ("--extra", extra)]
        # Of a wheel's requirements none would be a direct one.
        lowest = ["--resolution", "lowest-direct", "-r", str(checkout / "setup.cfg")]
        environment.install(*lowest, *options)
        environment.install("--no-deps", str(wheel))
        return environment

    return make
