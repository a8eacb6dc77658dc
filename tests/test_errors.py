"""The tree of exceptions is the one that its docstring draws."""

from __future__ import annotations

import re
import typing as t

import pytest

from flask_qconsume import errors

DRAWN = re.compile(r"^(?P<rails>[\s│├└─]*)(?P<name>[A-Z]\w+)(?: \((?P<other>\w+)\))?")


def drawn() -> t.Iterator[tuple[str, str | None, str | None]]:
    """Class, its parent in the drawing, and the built-in class beside it."""
    above: list[tuple[int, str]] = []
    tree = (errors.__doc__ or "").split("::", 1)[1].split("The last two")[0]
    for line in tree.splitlines():
        found = DRAWN.match(line)
        if found is None:
            continue
        depth = len(found["rails"])
        above = [(d, name) for d, name in above if d < depth]
        yield found["name"], above[-1][1] if above else None, found["other"]
        above.append((depth, found["name"]))


TREE = list(drawn())


def test_every_class_is_drawn() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert classes == {name for name, _, _ in TREE}


@pytest.mark.parametrize(("name", "parent", "other"), TREE)
def test_each_class_is_what_the_drawing_says(
    name: str, parent: str | None, other: str | None
) -> None:
    cls = getattr(errors, name)
    if parent:
        assert issubclass(cls, getattr(errors, parent))
    if other:
        assert issubclass(cls, eval(other))


@pytest.mark.parametrize("cls", [errors.HandlerTimeout, errors.Interrupted])
def test_what_is_thrown_into_handlers_is_no_exception(
    cls: type[BaseException],
) -> None:
    assert not issubclass(cls, Exception)


def test_an_invalid_message_keeps_its_reason_and_details() -> None:
    error = errors.UndecodableMessage("no JSON", {"a": ["b"]})
    assert (str(error), error.reason, error.details) == (
        "no JSON",
        "no JSON",
        {"a": ["b"]},
    )


def test_a_handler_timeout_names_its_limit() -> None:
    error = errors.HandlerTimeout(2.50)
    assert str(error) == "the handler took longer than its 2.5 s"
    assert error.seconds == 2.5


def test_a_publish_error_has_errors_of_other_messages_only_if_given() -> None:
    assert errors.PublishError("no").errors == ()
