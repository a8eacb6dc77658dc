"""Kind and free space of the file system that has the database."""

from __future__ import annotations

import os
import pathlib
import re

from ....errors import BrokerRefused
from ....errors import PublishRefused

_MOUNTS = pathlib.Path("/proc/self/mountinfo")
#: File systems over a network, where processes of two hosts share no memory. SQLite's
#: log needs shared memory, and some of these file systems also lack locks.
_SHARES = frozenset(
    {
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gcsfuse"),
        *("glusterfs", "gpfs", "lustre", "mountpoint-s3", "ncpfs", "nfs", "nfs4"),
        *("orangefs", "rclone", "s3fs", "smb3", "smbfs", "sshfs", "vboxsf"),
        *("vmhgfs", "vmhgfs-fuse"),
    }
)
_IN_MEMORY = frozenset({"ramfs", "tmpfs"})


def check_is_local(path: pathlib.Path, mounts: pathlib.Path = _MOUNTS) -> None:
    """Refuse a file on a network share.

    :raises BrokerRefused: with the kind of file system.
    """
    kind = find_kind(path, mounts)
    if kind.removeprefix("fuse.") in _SHARES:
        raise BrokerRefused(
            f"'{path}' is on a network share ({kind}), where SQLite would damage its"
            " file. Use a file on a local disk, or a database 'postgresql://…'."
        )


def is_in_memory(path: pathlib.Path) -> bool:
    """Return whether a restart of the machine deletes the file."""
    return find_kind(path) in _IN_MEMORY


def check_free_space(path: pathlib.Path, least: int) -> None:
    """Refuse new messages on a nearly full disk.

    :param least: Bytes that must be free.
    :raises PublishRefused: with what to do.
    """
    try:
        found = os.statvfs(path.parent)
    except (AttributeError, OSError):
        return  # The first write raises an error that says more.
    free = found.f_bavail * found.f_frsize
    if free < least:
        raise PublishRefused(
            f"The disk of '{path}' has {free >> 20} MiB left, and SQLite needs room to"
            f" acknowledge what it has. Below {least >> 20} MiB nothing is published."
            " Make room, or set the transport option 'min_free_space'."
        )


def find_kind(path: pathlib.Path, mounts: pathlib.Path = _MOUNTS) -> str:
    """Return the kind of a path's file system, as Linux names it; ``""`` elsewhere."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    folders = {str(each) for each in path.absolute().resolve().parents}
    found: tuple[int, str] = (0, "")
    for line in lines:
        folder, kind = _read_mount(line)
        # Of two file systems mounted on one folder, the later hides the earlier.
        if folder in folders and len(folder) >= found[0]:
            found = len(folder), kind
    return found[1]


def _read_mount(line: str) -> tuple[str, str]:
    """Return the folder and the kind of a line of ``mountinfo``."""
    left, _, right = line.partition(" - ")
    fields, kind = left.split(" "), right.partition(" ")[0]
    folder = fields[4] if len(fields) > 4 else ""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), folder), kind
