"""Restarts a command in an interpreter that gevent patches before all other imports.

When a ``flask`` command runs, ``ssl``, ``socket`` and ``threading`` have been imported.
Patching then would leave unpatched names behind that block the whole process, such as
kombu's ``select``. A restart of the interpreter by ``gevent.monkey`` has no such names,
and keeps the process id, the standard streams and the working directory.
"""

from __future__ import annotations

import os
import sys
import typing as t
from collections.abc import Mapping
from collections.abc import Sequence

from ..errors import WorkerError
from ..running.patched import is_patched

#: Variable of the new interpreter's environment, so that it does not restart again.
_RESTARTED_VARIABLE = "_FLASK_QCONSUME_PATCHED"

#: Short options of the interpreter with a value, which may be a word of its own.
_OPTIONS_WITH_VALUE = "cmWX"


class CommandLine(t.NamedTuple):
    """The command line of a Python process, in its parts."""

    #: The interpreter's own options.
    options: list[str]
    #: A module's name if :attr:`is_module`, else a script's path.
    target: str
    is_module: bool
    arguments: list[str]


def ensure_patched() -> None:
    """Restart this command under gevent's patches, unless gevent has patched it."""
    tried = os.environ.pop(_RESTARTED_VARIABLE, None)
    if is_patched() or tried:
        return
    command, environment = build_patched_command()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, command, {**environment, _RESTARTED_VARIABLE: "1"})


def build_patched_command() -> tuple[list[str], dict[str, str]]:
    """Build the command line that runs this command under ``gevent.monkey``.

    :raises WorkerError: if the process runs neither a script nor a module.
    """
    start = parse_command_line(sys.orig_argv, sys.argv)
    target = ["--module", start.target] if start.is_module else [start.target]
    monkey = ["-m", "gevent.monkey", *target, *start.arguments]
    environment = _add_script_folder(start, os.environ)
    return [sys.executable, *start.options, *monkey], environment


def build_same_command() -> tuple[list[str], dict[str, str]]:
    """Build the command line and the environment that run this command again."""
    return [sys.executable, *sys.orig_argv[1:]], dict(os.environ)


def parse_command_line(orig_argv: Sequence[str], argv: Sequence[str]) -> CommandLine:
    """Parse the command line of a process.

    :param orig_argv: ``sys.orig_argv``: the interpreter's options, then a script or
        ``-m`` and a module, then the arguments in ``argv[1:]``.
    :raises WorkerError: if the process runs neither a script nor a module.
    """
    arguments = list(argv[1:])
    head = list(orig_argv[1 : len(orig_argv) - len(arguments)])
    options: list[str] = []
    while head and head[0].startswith("-"):
        word = head.pop(0)
        flags, letter, value = _split_option(word)
        if letter == "m" and (value or head):
            options += [flags] if flags != "-" else []
            return CommandLine(options, value or head[0], True, arguments)
        if letter in {"c", "m"} or word == "-":
            raise _create_unrepeatable_error()
        options.append(word)
        if letter and not value and head:
            options.append(head.pop(0))
    if not head:
        raise _create_unrepeatable_error()
    return CommandLine(options, head[0], False, arguments)


def _split_option(word: str) -> tuple[str, str, str]:
    """Split one of the interpreter's options, such as ``-uWerror``, into its parts."""
    if word.startswith("--"):
        return word, "-" if word == "--check-hash-based-pycs" else "", ""
    for at, letter in enumerate(word):
        if letter in _OPTIONS_WITH_VALUE:
            return word[:at], letter, word[at + 1 :]
    return word, "", ""


def _create_unrepeatable_error() -> WorkerError:
    return WorkerError(
        "Cannot restart this command in an interpreter that gevent patches: it is"
        " neither a script nor a module. Start it by 'flask qconsume run', or by"
        " 'python -m gevent.monkey --module flask qconsume run'."
    )


def _add_script_folder(
    start: CommandLine, environment: Mapping[str, str]
) -> dict[str, str]:
    """Add the folder of a script to the variable ``PYTHONPATH``.

    Python puts that folder on ``sys.path``; ``gevent.monkey`` does not.
    """
    folder = os.path.dirname(os.path.abspath(start.target))
    # The folder of installed commands, such as 'flask', has nothing to import.
    if start.is_module or folder == os.path.dirname(os.path.abspath(sys.executable)):
        return dict(environment)
    paths = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    return {**environment, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
