"""The layout of the package: imports go down only, and names and sizes stay readable.

``python -m tests.test_house`` prints the measurements.
"""

from __future__ import annotations

import ast
import collections
import configparser
import functools
import graphlib
import io
import pathlib
import re
import sys
import tokenize
import typing as t

import pytest

import flask_qconsume

from .harness.scripts import run_script

HOUSE = pathlib.Path(flask_qconsume.__file__).parent
MODULES = {path.relative_to(HOUSE): path for path in sorted(HOUSE.rglob("*.py"))}

WORDS = {
    *("background_thread", "errors", "first_use", "logs", "message"),
    *("native_threads", "outcomes", "retry", "seconds", "settings", "text"),
    "version",
}
FLOORS = {
    "databases": 1,
    "formats": 1,
    "registration": 2,
    "handling": 3,
    "broker": 4,
    "brokers": 5,
    "transports": 6,
    "appconsumers": 7,
    "observing": 8,
    "running": 9,
}
DOORS = 10

#: The rooms of brokers that other rooms share.
SHARED_ROOMS = {("redis_lists", "redis"), ("redis_streams", "redis")}

LONGEST = 45
LONGEST_CLASS = 250

#: Names that several rooms have for the same role.
ROLES = {"Channel", "Keys", "Layout", "Publisher", "Transport"}

#: Words without a named subject, of which a text has at most so many in a thousand.
VAGUE = re.compile(
    r"\b(who|whoever|whose|whom|nobody|somebody|anybody|everybody|others)\b", re.I
)
MOST_VAGUE = 1.5

#: Where else than at home something may be imported: only inside functions, there.
HOMES = {
    "gevent": ({"running"}, {"cli", "integrations"}),
    "kombu": ({"broker", "brokers", "transports"}, set()),
    "amqp": ({"broker", "brokers", "transports"}, set()),
    "redis": ({"broker", "brokers", "transports"}, set()),
    "confluent_kafka": ({"broker", "brokers", "transports"}, set()),
    "psycopg": ({"brokers"}, set()),
    "google": (set(), {"formats"}),
    "sentry_sdk": ({"integrations"}, set()),
    "sqlalchemy": ({"brokers", "databases"}, set()),
    "prometheus_client": (set(), {"observing"}),
    "opentelemetry": ({"observing"}, set()),
    "pythonjsonlogger": ({"observing"}, set()),
}

#: Packages that are not named as the modules that they contain.
PACKAGES = {
    "google": "protobuf",
    "opentelemetry": "opentelemetry-api",
    "pythonjsonlogger": "python-json-logger",
}

Function = (ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def trees() -> dict[pathlib.Path, ast.Module]:
    return {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}


@functools.cache
def nodes(module: pathlib.Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(trees()[module]))


def floor(path: tuple[str, ...]) -> int:
    return 0 if path[0] in WORDS else FLOORS.get(path[0], DOORS)


def imported(
    module: pathlib.Path, found: t.Iterable[ast.AST] | None = None
) -> t.Iterator[tuple[str, ...]]:
    """The absolute path of all that a module imports, or that these nodes of it do."""
    package = (HOUSE.name, *module.parent.parts)
    for node in nodes(module) if found is None else found:
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            path = tuple(node.module.split(".")) if node.module else ()
            base = package[: len(package) - node.level + 1] if node.level else ()
            names = [(alias.name,) for alias in node.names]
            yield from ((*base, *path, *name) for name in names)


def outside_of_functions(module: pathlib.Path) -> t.Iterator[ast.AST]:
    """The nodes of a module without those of its functions."""
    for node in trees()[module].body:
        if not isinstance(node, Function):
            yield from ast.walk(node)


def test_imports_go_down_only() -> None:
    upward = [
        f"{module} imports {'.'.join(path)}"
        for module in MODULES
        for path in imported(module)
        if path[0] == HOUSE.name and len(path) > 1
        if floor(path[1:]) > floor(module.with_suffix("").parts)
    ]
    assert upward == []


def imported_files() -> dict[pathlib.Path, set[pathlib.Path]]:
    """The files of the package that each file imports, also for types only."""
    names = {module.with_suffix("").parts: module for module in MODULES}
    packages = {
        path[:-1]: file for path, file in names.items() if path[-1] == "__init__"
    }
    names |= packages
    found: dict[pathlib.Path, set[pathlib.Path]] = {}
    for module in MODULES:
        paths = [path[1:] for path in imported(module) if path[0] == HOUSE.name]
        files = {names.get(path, names.get(path[:-1], module)) for path in paths}
        found[module] = files - {module}
    return found


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = imported_files()
    tuple(graphlib.TopologicalSorter(graph).static_order())


def test_a_brokers_room_imports_no_other_brokers_room() -> None:
    crossing = {
        (module.parts[1], file.parts[1])
        for module, files in imported_files().items()
        for file in files
        if module.parts[0] == file.parts[0] == "brokers"
        and len(module.parts) > 2
        and module.parts[1] != file.parts[1]
    }
    assert crossing <= SHARED_ROOMS


def test_words_know_the_standard_library_only() -> None:
    known = {*sys.stdlib_module_names, HOUSE.name}
    foreign = [
        f"{word} imports {path[0]}"
        for word in sorted(WORDS)
        for path in imported(pathlib.Path(f"{word}.py"))
        if path[0] not in known
    ]
    assert foreign == []


def test_gevent_and_the_brokers_libraries_stay_at_home() -> None:
    strayed = [
        f"{module} imports {library}"
        for module in MODULES
        for library, (homes, lazily) in HOMES.items()
        if module.parts[0] not in homes
        if library in imported_libraries(module, module.parts[0] in lazily)
    ]
    assert strayed == []


@functools.cache
def imported_libraries(module: pathlib.Path, lazily: bool) -> set[str]:
    """The libraries that a module imports; outside of functions only, if lazily."""
    found = outside_of_functions(module) if lazily else None
    return {path[0] for path in imported(module, found)}


def test_what_is_imported_is_required() -> None:
    """Else it is there by accident, because something else happens to bring it."""
    # Types are for mypy only; the plugin is for users with pytest.
    others = {*sys.stdlib_module_names, HOUSE.name, "_typeshed", "pytest"}
    used = {
        PACKAGES.get(path[0], path[0]).replace("_", "-")
        for module in MODULES
        for path in imported(module)
        if path and path[0] not in others
    }
    assert len(used) > 10
    assert used - required() == set()


def required() -> set[str]:
    """The packages that ``setup.cfg`` requires, with extras or without."""
    config = configparser.ConfigParser()
    config.read(pathlib.Path(__file__).parents[1] / "setup.cfg")
    extras = config["options.extras_require"].items()
    lists = [config["options"]["install_requires"]]
    lists += [names for extra, names in extras if extra not in {"tests", "docs"}]
    return {re.split(r"[<>=\[]", line)[0].lower() for line in "\n".join(lists).split()}


def test_configuration_is_read_in_one_place_only() -> None:
    readers = [
        f"{module}: {ast.unparse(node)}"
        for module in MODULES
        for node in nodes(module)
        if isinstance(node, ast.Attribute) and node.attr == "config"
    ]
    assert readers == ["extension.py: app.config"]


def test_no_function_is_long() -> None:
    long = {
        f"{module}: {node.name}": function_lines(node)
        for module in MODULES
        for node in nodes(module)
        if isinstance(node, Function) and function_lines(node) > LONGEST
    }
    assert long == {}


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function's body without its docstring."""
    body = node.body[1:] if ast.get_docstring(node, clean=False) else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def classes() -> t.Iterator[tuple[pathlib.Path, ast.ClassDef]]:
    for module, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                yield module, node


def class_lines(node: ast.ClassDef) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def test_no_class_is_long() -> None:
    long = {
        f"{module}: {node.name}": class_lines(node)
        for module, node in classes()
        if class_lines(node) > LONGEST_CLASS
    }
    assert long == {}


def test_no_two_classes_share_a_name() -> None:
    counts = collections.Counter(node.name for _, node in classes())
    twice = {name for name, count in counts.items() if count > 1}
    assert twice - ROLES == set()


def vague_words() -> float:
    """Words without a named subject, in a thousand words of docstrings and comments."""
    text = " ".join(prose())
    return 1000 * len(VAGUE.findall(text)) / len(re.findall(r"[A-Za-z']+", text))


def prose() -> t.Iterator[str]:
    for module in MODULES:
        for node in nodes(module):
            if isinstance(node, (ast.Module, ast.ClassDef, *Function)):
                yield ast.get_docstring(node) or ""
        source = io.StringIO(MODULES[module].read_text("utf-8"))
        for token in tokenize.generate_tokens(source.readline):
            if token.type == tokenize.COMMENT:
                yield token.string


def test_sentences_name_their_subjects() -> None:
    assert vague_words() <= MOST_VAGUE


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(name) for name, tree in trees().items() if not ast.get_docstring(tree)
    ]
    assert silent == []


def test_everything_public_has_a_docstring() -> None:
    missing = [
        f"{module}: {name}"
        for module, tree in trees().items()
        for name, node in public(tree)
        # The inside of one broker is imported by that broker only.
        if not ast.get_docstring(node) and not ("." in name and len(module.parts) > 2)
    ]
    assert missing == []


def public(
    tree: ast.Module | ast.ClassDef,
) -> t.Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Functions and classes with public names; a method of a base has its docstring."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name[0] != "_":
            yield node.name, node
            if isinstance(node, ast.ClassDef) and not node.bases:
                yield from ((f"{node.name}.{n}", found) for n, found in public(node))


@pytest.mark.process
def test_importing_the_package_imports_neither_gevent_nor_a_transport() -> None:
    code = (
        "import sys, flask_qconsume, flask_qconsume.testing.client\n"
        "print([name for name in sys.modules"
        " if name.startswith(('gevent', 'kombu.transport', 'amqp', 'redis',"
        " 'confluent'))])"
    )
    # Without site: what measures a run imports gevent as the interpreter starts.
    done = run_script(code, "-S")
    assert done.stdout.strip() == "[]", done.stderr


def measure() -> t.Iterator[str]:
    """What the tests above limit, as lines of text."""
    rooms: collections.Counter[pathlib.Path] = collections.Counter()
    for module, path in MODULES.items():
        rooms[module.parent] += len(path.read_text("utf-8").splitlines())
    longest = max(classes(), key=lambda found: class_lines(found[1]))
    yield f"longest class: {longest[1].name}, {class_lines(longest[1])} lines"
    yield f"vague words: {vague_words():.1f} in 1,000 words of docstrings and comments"
    yield from (f"{lines:6} lines in {room}" for room, lines in sorted(rooms.items()))
    yield f"{sum(rooms.values()):6} lines in all"


if __name__ == "__main__":
    print(*measure(), sep="\n")
