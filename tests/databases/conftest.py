"""Engines that are disposed of with their test."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from .engines import Engines


@pytest.fixture
def engines(tmp_path: pathlib.Path) -> t.Iterator[Engines]:
    made = Engines(tmp_path / "shop.db")
    yield made
    made.dispose()
