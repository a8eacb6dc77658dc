"""A Unix socket beside the file for each process that consumes.

Other processes send wake-ups to the socket, and find out by it whether the process has
ended: the kernel refuses datagrams as soon as no process has the socket open. A halted
or busy process still has its socket open. This works across containers.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import pathlib
import platform
import secrets
import socket
import threading
import typing as t

from ....native_threads import get_unpatched

_BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")

_SUFFIX = ".sock"


class ProcessSocket:
    """The socket of this process, open for as long as its database is open.

    :param database: The database's file.
    :raises OSError: if the file system has no sockets, or the path is too long.
    """

    def __init__(self, database: pathlib.Path) -> None:
        name = f"{database.name}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        self.path = database.with_name(name)
        # Not a socket of gevent, which would belong to one event loop.
        self._socket = _open_socket()
        self._receivers: list[socket.socket] = []
        # Connected, so that wake() works after the file of the socket is deleted.
        self._to_self = _open_socket()
        self._to_self.setblocking(False)
        try:
            self._socket.bind(str(self.path))
            # Programs that may write to the file may also send wake-ups.
            os.chmod(self.path, database.stat().st_mode & 0o666)
            self._to_self.connect(str(self.path))
        except OSError:
            self.close()
            raise

    @property
    def process(self) -> str:
        """The text by which other processes find this socket."""
        return f"{find_host()}/{self.path.name}"

    def open_receiver(self) -> socket.socket:
        """Return a socket for this thread, or its event loop, that receives."""
        number = os.dup(self._socket.fileno())
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM, fileno=number)
        self._receivers.append(receiver)
        return receiver

    def wake(self) -> None:
        """End the present wait of a receiver."""
        with contextlib.suppress(OSError):
            self._to_self.send(b"")

    def close(self) -> None:
        """Close the socket, and delete its file."""
        self._socket.close()
        self._to_self.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def leave_to_parent(self) -> None:
        """In a forked child: replace the parent's socket by an unused one.

        Otherwise the parent would seem to live for as long as the child.
        """
        numbers = [self._socket.fileno(), *(each.fileno() for each in self._receivers)]
        with _open_socket() as unused:
            for number in numbers:
                # If the number were closed, another file would get the same number.
                if number >= 0:
                    os.dup2(unused.fileno(), number, inheritable=False)


class OwnSocket:
    """The socket of this process, opened at its first use.

    :param database: The database's file.
    """

    def __init__(self, database: pathlib.Path) -> None:
        self._database = database
        self._lock = threading.Lock()
        self.opened: ProcessSocket | None = None
        self._cannot_open = False

    def open(self) -> ProcessSocket | None:
        """Return the socket; ``None`` where none can be opened."""
        with self._lock:
            if self.opened is None and not self._cannot_open:
                try:
                    self.opened = ProcessSocket(self._database)
                except (OSError, AttributeError):
                    self._cannot_open = True
                else:
                    self._delete_old_sockets()
            return self.opened

    def close(self) -> None:
        """Close the socket; the next use opens a new socket."""
        opened, self.opened = self.opened, None
        self._cannot_open = False
        if opened is not None:
            opened.close()

    def _delete_old_sockets(self) -> None:
        """Delete sockets that were there before the machine was started."""
        pattern = f"{glob.escape(self._database.name)}-*{_SUFFIX}"
        with contextlib.suppress(OSError):
            for path in self._database.parent.glob(pattern):
                if _is_refused(str(path)):
                    path.unlink(missing_ok=True)


class PeerSockets:
    """The sockets of other processes on this host.

    :param database: The database's file.
    """

    def __init__(self, database: pathlib.Path) -> None:
        self._folder = database.parent
        self._prefix = f"{database.name}-"

    def is_dead(self, process: str) -> bool:
        """Return whether a process has ended, without any doubt.

        A missing socket proves nothing: another program may have deleted its file. Of
        processes of other hosts, nothing is known.
        """
        path = self._find(process)
        return path is not None and _is_refused(path)

    def send(self, data: bytes, processes: t.Iterable[str]) -> None:
        """Send a datagram to processes; never wait, and never raise."""
        paths = filter(None, map(self._find, processes))
        with _open_socket() as sender:
            sender.setblocking(False)
            for path in paths:
                # A process whose buffer is full finds the messages by its next look.
                with contextlib.suppress(OSError):
                    sender.sendto(data, path)

    def forget(self, process: str) -> None:
        """Delete the socket of a dead process."""
        path = self._find(process)
        if path is not None:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _find(self, process: str) -> str | None:
        """Return the path of a process's socket; ``None`` for other hosts."""
        host, _, name = process.partition("/")
        is_socket = name.startswith(self._prefix) and name.endswith(_SUFFIX)
        is_here = host == find_host() and is_socket and "/" not in name
        return str(self._folder / name) if is_here else None


@functools.cache
def find_host() -> str:
    """Return a text that the processes of this host share, in all its containers."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return platform.node()


def _open_socket() -> socket.socket:
    kind = get_unpatched("socket", "socket")
    return t.cast(socket.socket, kind(socket.AF_UNIX, socket.SOCK_DGRAM))


def _is_refused(path: str) -> bool:
    """Return whether no process has a socket open."""
    with _open_socket() as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
