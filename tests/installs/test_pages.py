"""The docs' code runs where only those packages are that its page tells to install."""

from __future__ import annotations

import json
import pathlib
import re
import shlex
import typing as t

import pytest

from ..cli.commands import Commands
from ..cli.commands import Running
from ..pages import PAGES
from ..pages import blocks_in
from ..pages import code_of
from ..pages import commands_in
from ..pages import files_of
from ..pages import runs
from ..pages import write_files
from ..servers.ports import free_port
from ..waiting import wait_for
from .environments import Environment
from .environments import output_of
from .shops import answers
from .shops import write_shop
from .test_extras import EXTRAS

pytestmark = pytest.mark.long

#: A command may go on in the next line, after a backslash.
PIP = re.compile(r"\bpip\s+install\s+((?:\\\n|[^\n`])+)")
PACKAGE = re.compile(r"[A-Za-z][\w-]*(?:\[\w+\])?")


@pytest.fixture
def environment(
    request: pytest.FixtureRequest, wheel: pathlib.Path, tmp_path: pathlib.Path
) -> Environment:
    """An environment with what the page says to install; the package at the least."""
    found = Environment(tmp_path / "environment")
    found.install(str(wheel), *packages_of(request.getfixturevalue("page"), wheel))
    return found


def packages_of(page: str, wheel: pathlib.Path) -> list[str]:
    """The packages that a page has its readers install; ours is the wheel."""
    lines = PIP.findall(PAGES[page].read_text("utf-8"))
    words = [word for line in lines for word in shlex.split(line)]
    found = [word for word in words if PACKAGE.fullmatch(word)]
    return [word.replace("Flask-QConsume", str(wheel)) for word in found]


@pytest.fixture
def folder(page: str, tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with the files of the page."""
    found = tmp_path / "page"
    found.mkdir()
    write_files(page, found)
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page)])
def test_the_python_of_a_page_runs(
    page: str, environment: Environment, folder: pathlib.Path
) -> None:
    blocks = [b.code for b in code_of(page) if not b.caption and not b.not_run]
    script = "\n".join([*map(runs, files_of(page)), *blocks])
    (folder / "a_page.py").write_text(f"{script}\n", "utf-8")
    patched = ["-m", "gevent.monkey"] if "running.worker" in script else []
    environment.run("python", "-W", "error", *patched, "a_page.py", folder=folder)


@pytest.mark.parametrize("page", ["how-to/test"])
def test_its_commands_run_its_tests(
    page: str, environment: Environment, folder: pathlib.Path
) -> None:
    plain, patched = [c for c in commands_in(page) if "pytest" in c.split()[-1]][-2:]
    assert (plain, patched.split()[0]) == ("pytest", "python")
    for command in (plain, patched):
        said = environment.run(*command.split(), folder=folder)
        assert re.search(r"\b7 passed|\b6 passed, 1 skipped", said), said


@pytest.mark.parametrize("page", ["quickstart"])
def test_the_first_app_of_the_quickstart_does_as_it_says(
    page: str, environment: Environment, folder: pathlib.Path
) -> None:
    run, place, look = commands_in(page)[3:6]
    with started(run, environment, folder) as (running, local):
        placed = output_of(["bash", "-ec", local(place)], folder)
        assert set(json.loads(placed)) == {"message"}
        wait_for(
            lambda: output_of(["bash", "-ec", local(look)], folder).strip() == "[7]",
            message=lambda: running.output,
        )
        assert promised(page, "Traceback") in without_ids(running.output, folder)


@pytest.mark.parametrize("page", ["quickstart"])
def test_the_second_app_of_the_quickstart_does_as_it_says(
    page: str, environment: Environment, folder: pathlib.Path
) -> None:
    lists, run, place = commands_in(page)[6:9]
    (table,) = [b.code for b in blocks_in(page, "console") if lists in b.code]
    listed = environment.run(*shlex.split(lists), folder=folder)
    assert listed.strip() == table.strip().removeprefix(f"$ {lists}\n")
    with started(run, environment, folder) as (running, local):
        placed = output_of(["bash", "-ec", local(place)], folder)
        assert json.loads(placed) == {"status": "queued"}
        running.wait_for(promised(page, "order.created: {"))
        assert running.end() == 0


class started:
    """A command of a page that serves at port 5000, at another port."""

    def __init__(
        self, command: str, environment: Environment, folder: pathlib.Path
    ) -> None:
        self._address = f"127.0.0.1:{free_port()}"
        words = shlex.split(self._local(command))
        program = environment.program(words[0])
        self._running = Commands(folder, {}).spawn([program, *words[1:]])

    def _local(self, command: str) -> str:
        assert "127.0.0.1:5000" in command
        return command.replace("127.0.0.1:5000", self._address)

    def __enter__(self) -> tuple[Running, t.Callable[[str], str]]:
        running = self._running
        wait_for(
            lambda: answers(self._address, running),
            60.0,
            message=lambda: running.output,
        )
        return running, self._local

    def __exit__(self, *exc: object) -> None:
        self._running.__exit__(*exc)


def promised(page: str, part: str) -> str:
    """The last line of what a terminal will show, according to a page."""
    (block,) = [b.code for b in blocks_in(page, "text") if part in b.code]
    return block.strip().splitlines()[-1].strip()


def without_ids(output: str, folder: pathlib.Path) -> str:
    return output.replace(f"{folder}/", "")


@pytest.mark.parametrize("page", ["how-to/deploy"])
def test_gunicorn_takes_the_commands_and_the_files(
    page: str, environment: Environment, folder: pathlib.Path
) -> None:
    write_shop(folder)
    commands = [shlex.split(c) for c in commands_in(page) if c.startswith("gunicorn")]
    assert len(commands) == 3
    for command in commands:
        environment.run(*command, "--check-config", folder=folder)
    some = ["-c", "gunicorn_some.conf.py", "shop:create_app()"]
    environment.run("gunicorn", *some, "--check-config", folder=folder)


def test_the_extras_that_pages_name_are_known() -> None:
    text = "\n".join(path.read_text("utf-8") for path in PAGES.values())
    assert set(re.findall(r"Flask-QConsume\[(\w+)\]", text)) <= EXTRAS
