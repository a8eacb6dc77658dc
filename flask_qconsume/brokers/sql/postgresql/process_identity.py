"""Identities of processes, which tell other processes of the host when one has ended.

So a process of the same host and the same container can give back the messages of a
killed process at once. Other processes wait for the end of its lease.
"""

from __future__ import annotations

import functools
import os
import pathlib

_PROC = pathlib.Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"
#: The position of the start time in ``/proc/<pid>/stat``, behind the program's name.
_START_TIME = 19


def identify_process() -> str:
    """Return the identity of this process; ``""`` without Linux's ``/proc``."""
    pid = os.getpid()
    space, started = _find_space(), _read_start_time(pid)
    return f"{space}/{pid}/{started}" if space and started else ""


def has_ended(identity: str) -> bool:
    """Return whether a process has ended; false if that is not certain.

    :param identity: The result of :func:`identify_process` in the other process.
    """
    space, _, process = identity.rpartition("/")[0].rpartition("/")
    started = identity.rpartition("/")[2]
    if not space or space != _find_space() or not process.isdecimal():
        return False
    try:
        # A process of another user may be invisible in '/proc'.
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    now_started = _read_start_time(int(process))
    return now_started is not None and now_started != started


@functools.cache
def _find_space() -> str:
    """Return a text for the space in which a process number is unique.

    The space is a container on a host, since the last start of the host.
    """
    try:
        boot = _BOOT_ID.read_text("ascii").strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _read_start_time(pid: int) -> str | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text("ascii", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[_START_TIME] if len(fields) > _START_TIME else None
