"""Runs the tests in an interpreter that gevent patches before any other import.

``pytest`` replaces its process by a patched one; ``pytest -n`` stays as it is, and
starts patched workers. Must not import the package.
"""

from __future__ import annotations

import os
import pathlib
import shlex
import sys
import typing as t

import pytest

from .bytecode import keep_compiled_modules

GUARD = "QCONSUME_TESTS_PATCHED"
WORKER = pathlib.Path(__file__).with_name("worker.py")
COMMAND = "python -m gevent.monkey --module pytest"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    keep_compiled_modules(config)
    if _is_patched():
        _notice_children()
        return
    if _has_workers(config):
        return
    if not _can_start_again():
        raise pytest.UsageError(
            "The tests need an interpreter that gevent has patched before pytest was"
            f" imported, and this one is not. Run: {COMMAND}"
        )
    _start_again(config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[t.Any]) -> None:
    """Have pytest-xdist start workers that gevent has patched."""
    for spec in specs:
        spec.python = shlex.join([sys.executable, str(WORKER)])


def _has_workers(config: pytest.Config) -> bool:
    """Whether pytest-xdist runs the tests in other processes, and none in this one."""
    return bool(config.getoption("tx", None))


def _is_patched() -> bool:
    from gevent import monkey

    return bool(monkey.is_module_patched("socket"))


def _notice_children() -> None:
    """Install gevent's handler of SIGCHLD before the first test forks.

    gevent does so at the first fork, and after it. ``os.waitpid`` would wait for ever
    for a child that has ended before that.
    """
    import gevent

    gevent.get_hub().loop.install_sigchld()


def _can_start_again() -> bool:
    # Only if pytest owns the process: a debugger would lose a process that is replaced.
    program = pathlib.Path(sys.argv[0])
    ours = program.name in {"pytest", "py.test"} or program.parent.name == "pytest"
    return ours and GUARD not in os.environ


def _start_again(config: pytest.Config) -> None:
    # pytest has redirected the output descriptors to files of its own by now.
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.stop_global_capturing()
    sys.stdout.flush()
    sys.stderr.flush()
    flags = sys.orig_argv[1 : _first_positional(sys.orig_argv)]
    module = ["-m", "gevent.monkey", "--module", "pytest"]
    arguments = [sys.executable, *flags, *module, *sys.argv[1:]]
    os.execve(sys.executable, arguments, {**os.environ, GUARD: "1"})


def _first_positional(argv: list[str]) -> int:
    """Return the index of the program, which follows the interpreter's flags."""
    index = 1
    while index < len(argv) and argv[index].startswith("-") and argv[index] != "-m":
        index += 2 if argv[index] in {"-W", "-X"} else 1
    return index
