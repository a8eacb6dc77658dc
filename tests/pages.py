"""The pages of the docs, and the code in them.

- ``.. code-block:: python`` is run in the order of the page, in one namespace;
- with ``:caption: some/module.py`` it is written to a file of that name instead, as are
  files in TOML, and the page can import it;
- ``.. hidden:`` is a comment that readers do not see, and is run as well: what must
  have come of the snippet before it. With a ``:caption:`` it is a file that readers
  have from elsewhere;
- ``.. not run: <why>`` before a block leaves it out.
"""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = {
    str(path.relative_to(DOCS).with_suffix("")): path
    for path in sorted(DOCS.rglob("*.rst"))
    if "_build" not in path.parts
}

BLOCK = re.compile(r"^( *)\.\. (?:(hidden):|code-block:: (\S+)) *$")
NOT_RUN = re.compile(r"^ *\.\. not run: (.+)$")


@dataclass(frozen=True)
class Block:
    """A block of code in a page."""

    language: str
    code: str
    line: int
    caption: str = ""
    not_run: str = ""
    hidden: bool = False


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
                hidden=bool(found[2]),
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


def blocks_in(page: str, *languages: str) -> list[Block]:
    """The blocks of a page that are in one of these languages."""
    found = blocks_of(PAGES[page].read_text("utf-8"))
    return [block for block in found if block.language in languages]


def code_of(page: str) -> list[Block]:
    """The Python of a page."""
    return blocks_in(page, "python")


def commands_in(page: str) -> list[str]:
    """The commands that a page types into a shell."""
    text = "\n".join(block.code for block in blocks_in(page, "console"))
    joined = re.sub(r" *\\\n\s*", " ", text)
    return re.findall(r"^\$ (.+)$", joined, re.M)


def files_of(page: str) -> dict[str, str]:
    """The files that a page shows, and those that its readers have already."""
    return {
        block.caption: block.code.lstrip("\n") + "\n"
        for block in blocks_in(page, "python", "toml")
        if block.caption.endswith((".py", ".toml"))
    }


def write_files(page: str, folder: pathlib.Path) -> None:
    for name, text in files_of(page).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def runs(name: str) -> str:
    """Python that imports or runs a file of a page; tests are for pytest."""
    path = pathlib.PurePath(name).with_suffix("")
    if path.parts[0] == "tests" or not name.endswith(".py"):
        return ""
    if all(part.isidentifier() for part in path.parts):
        return "import " + ".".join(path.parts).removesuffix(".__init__")
    return f"import runpy; runpy.run_path({name!r})"


def bound_in(tree: ast.AST) -> Iterator[str]:
    """The names that a piece of Python gives to something, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0]
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def used_in(tree: ast.AST) -> set[str]:
    """The names that a piece of Python takes something from."""
    return {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
