"""What ``flask_qconsume`` exports is what it says it exports, and all is documented."""

from __future__ import annotations

import inspect

import pytest

import flask_qconsume

LISTED = sorted(flask_qconsume.__all__)


def test_the_names_are_sorted_and_there() -> None:
    assert flask_qconsume.__all__ == LISTED
    for name in LISTED:
        assert getattr(flask_qconsume, name) is not None


def test_nothing_else_of_ours_is_exported_by_accident() -> None:
    ours = {
        name
        for name, value in vars(flask_qconsume).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "").startswith("flask_qconsume")
        and not inspect.ismodule(value)
    }
    assert ours - {*LISTED} == set()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Consumer'"):
        flask_qconsume.Consumer  # noqa: B018


@pytest.mark.parametrize("name", LISTED)
def test_every_class_and_function_is_documented(name: str) -> None:
    value = getattr(flask_qconsume, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value)
