"""What the pages say is true: their Python runs, their commands and names exist.

Of a page, all Python is run in order, in one namespace:

- ``.. code-block:: python`` is run; with ``:caption: some/module.py`` it is written to
  a file of that name first, which is run or imported, and the page can import;
- ``.. hidden:`` is a comment that readers do not see, and is run as well: what a
  snippet needs around it, and what it must have done;
- ``.. not run: <why>`` before a block leaves it out.
"""

from __future__ import annotations

import contextvars
import importlib
import pathlib
import re
import runpy
import subprocess
import sys
import types
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass

import click
import pytest
from flask.cli import FlaskGroup

import flask_qconsume
from flask_qconsume.broker import headers
from flask_qconsume.broker.kafka import records
from flask_qconsume.cli import cli
from flask_qconsume.formats import protobuf
from flask_qconsume.handling import payload
from flask_qconsume.handling import signals
from flask_qconsume.settings import TABLE

from .waiting import wait_for

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = {
    str(path.relative_to(DOCS).with_suffix("")): path
    for path in sorted(DOCS.rglob("*.rst"))
    if "_build" not in path.parts
}

BLOCK = re.compile(r"^( *)\.\. (?:(hidden):|code-block:: (\S+)) *$")
NOT_RUN = re.compile(r"^ *\.\. not run: (.+)$")
COMMAND = re.compile(
    r"\bflask((?: --?[\w-]+(?:[ =][\w.:/()]+)?)*) qconsume(?= |$)(.*?)(?=\W+flask |$)"
)
WORD = re.compile(r"--?[a-z][\w-]*|[^\s=]+(?:=\S*)?")


@dataclass(frozen=True)
class Block:
    """A block of code in a page."""

    language: str
    code: str
    line: int
    caption: str = ""
    not_run: str = ""


def blocks_of(text: str) -> Iterator[Block]:
    lines = text.splitlines()
    reason = ""
    for number, line in enumerate(lines):
        if found := NOT_RUN.match(line):
            reason = found[1]
        if found := BLOCK.match(line):
            body = indented(lines[number + 1 :], len(found[1]))
            options, code = split(body)
            yield Block(
                language="python" if found[2] else found[3],
                # Leading empty lines keep the numbers in tracebacks right.
                code="\n" * (number + 1 + len(body) - len(code)) + "\n".join(code),
                line=number + 1,
                caption=options.get("caption", ""),
                not_run=reason,
            )
            reason = ""


def indented(lines: list[str], by_more_than: int) -> list[str]:
    """The lines that belong to a directive, without their common indentation."""
    found: list[str] = []
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if line.strip() and depth <= by_more_than:
            break
        found.append(line)
    margin = min(len(line) - len(line.lstrip()) for line in found if line.strip())
    return [line[margin:] for line in found]


def split(body: list[str]) -> tuple[dict[str, str], list[str]]:
    """The options at a directive's head, and what is below them."""
    options: dict[str, str] = {}
    for number, line in enumerate(body):
        found = re.match(r"^:([\w-]+): *(.*)$", line)
        if found is None:
            return options, body[number:]
        options[found[1]] = found[2]
    return options, []


def code_of(page: str) -> list[Block]:
    found = blocks_of(PAGES[page].read_text("utf-8"))
    return [block for block in found if block.language == "python"]


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


def write_files(page: str, folder: pathlib.Path) -> list[pathlib.Path]:
    written = []
    for block in code_of(page):
        if block.caption.endswith(".py"):
            path = folder / block.caption
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code.lstrip("\n"), "utf-8")
            written.append(path)
    return written


def run_file(path: pathlib.Path) -> None:
    if path.parts[0] == "tests":
        return  # For pytest, below.
    parts = path.with_suffix("").parts
    if all(part.isidentifier() for part in parts):
        importlib.import_module(".".join(parts).removesuffix(".__init__"))
    else:
        runpy.run_path(str(path))


@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page)])
def test_the_python_of_a_page_runs(
    page: str, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in write_files(page, folder):
        run_file(path.relative_to(folder))
    module = types.ModuleType("a_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    # A page may push an app context: it must be gone with the page.
    context = contextvars.copy_context()
    for block in code_of(page):
        if not block.caption and not block.not_run:
            code = compile(block.code, PAGES[page], "exec", dont_inherit=True)
            context.run(exec, code, module.__dict__)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if any("tests/" in b.caption for b in code_of(p))]
)
def test_the_tests_of_a_page_pass(page: str, folder: pathlib.Path) -> None:
    write_files(page, folder)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    run = subprocess.run(
        [*command, "tests"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stdout + run.stderr


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
