"""Getting into an interpreter that gevent patched before anything was imported.

When a ``flask`` command runs, ``ssl``, ``socket`` and ``threading`` are imported, so
patching now would leave names behind that block the whole process (kombu's ``select``
among them). Starting the interpreter anew, with ``gevent.monkey`` first, is clean: it
keeps the process id, the standard streams and the working directory.
"""

from __future__ import annotations

import os
import sys

#: Set in the new interpreter, so that a failure to patch does not go round for ever.
_MARK = "_FLASK_QCONSUME_PATCHED"


def is_patched() -> bool:
    """Whether gevent patched this process; without importing gevent."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))


def ensure_patched() -> None:
    """Return in a patched interpreter; start this very command anew if need be."""
    if is_patched() or os.environ.pop(_MARK, None):
        return
    os.environ[_MARK] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, _patched_command(sys.orig_argv, sys.argv))


def _patched_command(orig_argv: list[str], argv: list[str]) -> list[str]:
    """The same command line, run by ``gevent.monkey``.

    ``orig_argv`` is the interpreter's own: its options, then a script or ``-m`` module
    and the arguments in ``argv[1:]``.
    """
    arguments = argv[1:]
    head = orig_argv[1 : len(orig_argv) - len(arguments)]
    if "-m" in head:
        at = head.index("-m")
        options, target = head[:at], ["--module", head[at + 1]]
    else:
        options, target = head[:-1], head[-1:]
    command = ["-m", "gevent.monkey", *target, *arguments]
    return [sys.executable, *options, *command]
