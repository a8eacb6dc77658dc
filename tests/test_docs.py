"""What the pages say is true: their Python runs, their commands and names exist.

How code in a page is run and what is left out is said in :mod:`.pages`.
"""

from __future__ import annotations

import ast
import builtins
import contextvars
import doctest
import importlib
import pathlib
import re
import subprocess
import sys
import types
import typing as t
from collections.abc import Iterator

import click
import pytest
from flask.cli import FlaskGroup

import flask_qconsume
from flask_qconsume.broker import headers
from flask_qconsume.brokers.kafka import records
from flask_qconsume.cli import cli
from flask_qconsume.formats import protobuf
from flask_qconsume.handling import payload
from flask_qconsume.handling import signals
from flask_qconsume.settings import TABLE

from .pages import PAGES
from .pages import bound_in
from .pages import code_of
from .pages import files_of
from .pages import runs
from .pages import used_in
from .pages import write_files
from .waiting import wait_for

COMMAND = re.compile(
    r"\bflask((?: --?[\w-]+(?:[ =][\w.:/()]+)?)*) qconsume(?= |$)(.*?)(?=\W+flask |$)"
)
WORD = re.compile(r"--?[a-z][\w-]*|[^\s=]+(?:=\S*)?")


PACKAGE = pathlib.Path(flask_qconsume.__file__).parent

#: The modules that have examples in their docstrings.
MODULES_WITH_EXAMPLES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text("utf-8")
]


@pytest.mark.parametrize("module", MODULES_WITH_EXAMPLES)
def test_the_examples_in_docstrings_are_true(module: str) -> None:
    done = doctest.testmod(importlib.import_module(module))
    assert done.attempted > 0
    assert done.failed == 0


@pytest.fixture
def folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pathlib.Path]:
    """An empty working directory; what is imported from it is forgotten again."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and pathlib.Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page)])
def test_the_python_of_a_page_runs(
    page: str, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(page, folder)
    for name in files_of(page):
        exec(runs(name), {})
    module = types.ModuleType("a_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    # A page may push an app context: it must be gone with the page.
    context = contextvars.copy_context()
    for block in code_of(page):
        if not block.caption and not block.not_run:
            code = compile(block.code, PAGES[page], "exec", dont_inherit=True)
            context.run(exec, code, module.__dict__)


BUILTINS = {*dir(builtins), "__name__", "__file__"}


@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page)])
def test_readers_see_where_every_name_comes_from(page: str) -> None:
    seen = set(BUILTINS)
    for block in code_of(page):
        tree = ast.parse(block.code)
        if block.caption:  # A file is a module of its own.
            assert used_in(tree) <= {*BUILTINS, *bound_in(tree)}, block
        elif not block.hidden:
            seen.update(bound_in(tree))
            assert used_in(tree) <= seen, block


def test_names_are_found_in_all_places_that_bind_them() -> None:
    tree = ast.parse(
        "import a.b, c as d\n"
        "def e(f, *g, h=1, **i):\n"
        "    for j, k in f:\n"
        "        with g as l: m: int = n\n"
        "try: pass\n"
        "except o as p: [q for q in r]"
    )
    assert sorted(bound_in(tree)) == [*"adefghijklmpq"]
    assert used_in(tree) == {"f", "g", "n", "o", "q", "r", "int"}


TESTED = [
    page for page in PAGES if any(name[:6] == "tests/" for name in files_of(page))
]


@pytest.mark.process
@pytest.mark.parametrize("page", TESTED)
def test_the_tests_of_a_page_pass(page: str, folder: pathlib.Path) -> None:
    write_files(page, folder)
    # Another than "python -m pytest", which would look for modules here by itself.
    plain = str(pathlib.Path(sys.executable).with_name("pytest"))
    patched = [sys.executable, "-m", "gevent.monkey", "--module", "pytest"]
    for command, skipped in (([plain], True), (patched, False)):
        run = subprocess.run(
            [*command, "-p", "no:cacheprovider"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert ("skipped" in run.stdout) == skipped, run.stdout


def test_the_quickstart_bills_an_order_at_its_second_attempt(
    folder: pathlib.Path,
) -> None:
    from flask_qconsume.running.worker import Worker

    write_files("quickstart", folder)
    shop: t.Any = __import__("shop")
    worker = Worker(shop.app)
    worker.start()
    try:
        placed = shop.app.test_client().post("/orders", json={"id": 7})
        client = shop.app.test_client()
        wait_for(lambda: client.get("/billed").json == [7])
    finally:
        assert worker.stop()

    assert placed.status_code == 202
    assert set(placed.json) == {"message"}


def test_the_quickstarts_second_app_has_the_consumers_it_names(
    folder: pathlib.Path,
) -> None:
    write_files("quickstart", folder)
    store: t.Any = __import__("store")
    app = store.create_app()
    client = app.extensions["qconsume"]

    assert set(client.consumers) == {"orders.bill", "audit.note"}


def test_a_block_that_is_not_run_says_why() -> None:
    reasons = [b.not_run for page in PAGES for b in code_of(page) if b.not_run]

    assert all(len(reason.split()) > 3 for reason in reasons)


# -- commands --------------------------------------------------------------------------


def commands_of(text: str) -> Iterator[tuple[str, list[str]]]:
    """The ``flask … qconsume …`` in a page: Flask's part, and ours as words."""
    joined = re.sub(r"\\\n\s*", " ", text)
    listed = re.sub(r'\["flask", ([^\]]*)\]', json_command, joined)
    # In prose a literal may go on in the next line.
    whole = re.sub(r"``[^`]+``", lambda m: m[0].replace("\n", " "), listed)
    for line in whole.splitlines():
        for found in COMMAND.finditer(line):
            ours = re.split(r"``|[)\"'] |;|\||  #", found[2], maxsplit=1)[0]
            yield found[1], WORD.findall(ours.rstrip('."'))


def json_command(found: re.Match[str]) -> str:
    return "flask " + " ".join(re.findall(r'"([^"]*)"', found[1]))


COMMANDS = [
    pytest.param(flasks, words, id=f"{page}: {' '.join(words)}")
    for page, path in PAGES.items()
    for flasks, words in commands_of(path.read_text("utf-8"))
]


@pytest.mark.parametrize(("flasks", "words"), COMMANDS)
def test_a_command_that_a_page_names_exists(flasks: str, words: list[str]) -> None:
    assert unknown(FlaskGroup(), re.findall(r"--?[a-z][\w-]*", flasks)) == []
    assert unknown(cli, words) == []


def unknown(command: click.Command, words: list[str]) -> list[str]:
    """The names and options among the words that no command has."""
    found = []
    for word in words:
        if word.startswith("-"):
            name = word.partition("=")[0]
            if name not in options_of(command):
                found.append(f"{command.name} has no {name}")
        elif isinstance(command, click.Group):
            child = command.get_command(click.Context(command), word)
            if child is None:
                return [*found, f"{command.name} has no command {word}"]
            command = child
    return found


def options_of(command: click.Command) -> set[str]:
    parameters = command.get_params(click.Context(command))
    return {o for p in parameters for o in (*p.opts, *p.secondary_opts)}


def test_commands_are_found_in_every_form_that_a_page_has_them() -> None:
    text = """
    $ flask --app shop qconsume run orders.bill --processes 4
    CMD ["flask", "qconsume", "run"]
    ExecStart=/srv/.venv/bin/flask qconsume run
    Say ``flask qconsume declare
    --prune``, or "flask qconsume plan".
    """
    assert [" ".join(words) for _, words in commands_of(text)] == [
        "run orders.bill --processes 4",
        "run",
        "run",
        "declare --prune",
        "plan",
    ]


# -- names -----------------------------------------------------------------------------


def all_text() -> str:
    return "\n".join(path.read_text("utf-8") for path in PAGES.values())


def test_every_key_that_a_page_names_exists() -> None:
    named = set(re.findall(r"\b(?:FLASK_)?(QCONSUME_[A-Z_]+)\b", all_text()))

    assert named - {setting.key for setting in TABLE} == set()


def test_the_page_of_headers_names_them_all_and_no_other() -> None:
    named = set(re.findall(r"x-qconsume-[a-z-]+[a-z]", all_text()))
    ours = {
        value
        for name, value in vars(headers).items()
        if name.isupper() and isinstance(value, str) and value != headers.PREFIX
        if value.startswith(headers.PREFIX)
    }
    # The last one is RabbitMQ's alone.
    others = {payload.UNREADABLE, protobuf.TYPE, "x-qconsume-changed-headers"}
    of_kafka = {records.DUE, records.AS_JSON, records.AS_BYTES, *records.RESERVED}
    others |= {name for name in of_kafka if name.startswith(headers.PREFIX)}
    assert named == ours | others


def test_the_api_page_has_every_public_name() -> None:
    text = PAGES["reference/api"].read_text("utf-8")
    missing = [
        name
        for name in flask_qconsume.__all__
        if not re.search(rf":: flask_qconsume\.{name}$", text, re.M)
    ]
    assert missing == ["signals"]  # They have a page of their own.


def test_every_signal_has_a_description_for_its_page() -> None:
    source = pathlib.Path(signals.__file__).read_text("utf-8")
    described = re.findall(r"^#: .*\n(\w+) = _signals\.signal\(", source, re.M)
    all_of_them = re.findall(r"^(\w+) = _signals\.signal\(", source, re.M)

    assert described == all_of_them


def test_no_page_shouts_or_advertises() -> None:
    words = re.compile(
        r"[a-z]!(?:\s|$)|\b(?:blazing|seamless|powerful|simply|easily)\b"
    )
    found = [
        f"{page}:{number}: {line}"
        for page, path in PAGES.items()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if words.search(line)
    ]
    assert found == []
