"""A throwaway PostgreSQL with one user, and databases for single tests.

PostgreSQL refuses to run as root. As root the tests run it as the user ``postgres``,
who gets one capability more: the folders of root's tests are closed to other users.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import typing as t
import uuid

import psutil
import psycopg

from ..waiting import wait_for
from .disk import SmallDisk
from .ports import HOST
from .ports import free_port
from .server import Server
from .server import ServerError
from .server import is_alive

USER = PASSWORD = "guest"

#: The user as whom the server runs if the tests run as root.
_OWNER = "postgres"
#: Folders of the programs, with a number for the version, on Debian.
_DEBIAN = pathlib.Path("/usr/lib/postgresql")

_OPTIONS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    # A killed server leaves shared memory in files of its folder, not in /dev/shm.
    "dynamic_shared_memory_type": "mmap",
}

#: The line of ``postmaster.pid`` with the key and the number of the shared memory.
_SHARED_MEMORY_LINE = 6


class PostgreSQL(Server):
    """A throwaway server; ``options`` are parameters of its configuration."""

    title = "PostgreSQL"

    def __init__(
        self, folder: pathlib.Path, *, options: t.Mapping[str, str] | None = None
    ) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.options = {**_OPTIONS, **(options or {})}
        self._data = folder / "data"

    @classmethod
    def missing(cls) -> str | None:
        if _find_programs() is None:
            return "no postgres on the PATH, nor in /usr/lib/postgresql"
        if not _is_root():
            return None
        return None if _owner_exists() else f"root needs setpriv, and a user {_OWNER}"

    @property
    def url(self) -> str:
        """The URL of the database ``postgres``; tests should use one of their own."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://{USER}:{PASSWORD}@{HOST}:{self.port}/{database}"

    @contextlib.contextmanager
    def database(self, disk: SmallDisk | None = None) -> t.Iterator[Database]:
        """Create a database for a block, and close its connections at the end.

        :param disk: The disk for its tables, if a test fills it. The server's log of
            writes is elsewhere, so that the server goes on.
        """
        name = f"test_{uuid.uuid4().hex[:12]}"
        if disk is not None:
            shutil.chown(disk.folder, user=_OWNER if _is_root() else None)
            self.execute(f"CREATE TABLESPACE {name} LOCATION '{disk.folder}'")
        place = "pg_default" if disk is None else name
        self.execute(f"CREATE DATABASE {name} TABLESPACE {place}")
        try:
            yield Database(self, name, disk)
        finally:
            if self.running:  # It is not, if a standby has taken its place.
                self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
                self.execute(f"DROP TABLESPACE IF EXISTS {name}")

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """Return a new connection, which commits each statement."""
        return psycopg.connect(
            self.url_of(database), autocommit=True, connect_timeout=10
        )

    def execute(
        self, statement: str, *parameters: t.Any, database: str = "postgres"
    ) -> list[tuple[t.Any, ...]]:
        """Run one statement on a new connection; return the rows, if it has any."""
        with self.connect(database) as connection:
            done = connection.execute(statement, parameters or None)
            return done.fetchall() if done.description else []

    def terminate_connections(self, database: str | None = None) -> None:
        """Close all connections to a database, or to all, as an operator does."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = coalesce(%s, datname) AND pid <> pg_backend_pid()",
            database,
        )

    def start(self) -> None:
        self._create()
        super().start()

    def stop(self) -> None:
        """Stop by SIGINT: on SIGTERM it waits for its clients to go."""
        self._end(signal.SIGINT, timeout=self.stop_timeout)

    def kill(self) -> None:
        """Kill all processes at once, as a power cut does."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        super().kill()

    def close(self) -> None:
        super().close()
        self._remove_shared_memory()

    def freeze(self) -> None:
        """Let all processes hang. Each is in a process group of its own."""
        os.kill(self.pid, signal.SIGSTOP)
        # A stopped one starts no others.
        wait_for(lambda: _is_stopped(psutil.Process(self.pid)))
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        wait_for(lambda: all(map(_is_stopped, self._processes())))

    def thaw(self) -> None:
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    @contextlib.contextmanager
    def full_disk(self) -> t.Iterator[None]:
        """Let every write fail during a block, also that of the log, which ends it.

        Start the server again once the block is left.
        """
        for process in self._processes():
            # Root may not change the limits of another user everywhere.
            limit = ["prlimit", f"--pid={process.pid}", "--fsize=1:unlimited"]
            done = subprocess.run([*as_owner(), *limit], capture_output=True)
            if done.returncode and is_alive(process):
                raise ServerError(f"{limit} failed: {done.stderr!r}")
        yield

    def _processes(self) -> list[psutil.Process]:
        if not self.running:
            return []
        main = psutil.Process(self.pid)
        return [main, *main.children(recursive=True)]

    def _create(self) -> None:
        """Create the data folder, if there is none."""
        if (self._data / "PG_VERSION").exists():
            return
        password = self.folder / "password"
        password.write_text(PASSWORD)
        self._run(
            *("initdb", "-D", str(self._data), "-E", "UTF8", "--locale=C"),
            *("-U", USER, "-A", "scram-sha-256", f"--pwfile={password}", "--no-sync"),
        )

    def _run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL's to its end, as the server's user."""
        command = [*as_owner(), _program(program), *arguments]
        environment = {**self._environment(), "PGPASSWORD": PASSWORD}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=self.start_timeout,
        )
        if done.returncode:
            raise ServerError(f"{program} failed: {done.stdout}{done.stderr}")

    def _command(self) -> list[str]:
        options = {**self.options, "port": str(self.port)}
        words = [f"--{name}={value}" for name, value in options.items()]
        return [*as_owner(), _program("postgres"), "-D", str(self._data), *words]

    def _environment(self) -> dict[str, str]:
        inherited = super()._environment()
        return {k: v for k, v in inherited.items() if not k.startswith("PG")}

    def _is_ready(self) -> bool:
        try:
            return bool(self.execute("SELECT 1"))
        except psycopg.OperationalError:
            return False

    def _remove_shared_memory(self) -> None:
        """Remove what a killed server leaves in the kernel: a segment of some bytes."""
        left = self._data / "postmaster.pid"
        if not left.exists() or (ipcrm := shutil.which("ipcrm")) is None:
            return
        lines = left.read_text().splitlines()
        if len(lines) > _SHARED_MEMORY_LINE:
            number = lines[_SHARED_MEMORY_LINE].split()[-1]
            subprocess.run([ipcrm, "-m", number], capture_output=True)


class Standby(PostgreSQL):
    """A copy of a server that follows it, until it is promoted."""

    title = "PostgreSQL standby"

    def __init__(self, folder: pathlib.Path, primary: PostgreSQL) -> None:
        super().__init__(folder, options=primary.options)
        self._primary = primary

    def promote(self) -> None:
        """Make it a server that can be written, without what it had not got yet."""
        assert self.execute("SELECT pg_promote()") == [(True,)]

    def await_replica(self) -> None:
        """Wait until it has all that the primary has written so far."""
        (written,) = self._primary.execute("SELECT pg_current_wal_lsn()::text")[0]
        wait_for(lambda: self._has(written), 60)

    def _has(self, position: str) -> bool:
        got = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        return bool(self.execute(got, position)[0][0])

    def _create(self) -> None:
        if not (self._data / "PG_VERSION").exists():
            self._run(
                *("pg_basebackup", "-D", str(self._data), "-R", "-c", "fast"),
                *("--no-sync", "-d", self._primary.url),
            )


class PostgreSQLPair:
    """A server and a standby, which takes its place, and its address, in a failover."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._count = 0
        self.primary = PostgreSQL(folder / "0")
        self.standby = self._make_standby()

    @property
    def url(self) -> str:
        return self.primary.url

    @property
    def port(self) -> int:
        return self.primary.port

    @contextlib.contextmanager
    def database(self) -> t.Iterator[Database]:
        """Create a database on both; its URL stays the same over a failover."""
        with self.primary.database() as database:
            self.standby.await_replica()
            yield database

    def fail_over(self) -> None:
        """Kill the primary, and let the standby take its place and its port.

        Another standby follows the new primary from then on.
        """
        killed, promoted = self.primary, self.standby
        killed.kill()
        promoted.promote()
        promoted.stop()
        promoted.port = killed.port
        promoted.start()
        self.primary, self.standby = promoted, self._make_standby()
        self._stack.enter_context(self.standby)

    def __enter__(self) -> PostgreSQLPair:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.primary)
            stack.enter_context(self.standby)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _make_standby(self) -> Standby:
        self._count += 1
        return Standby(self._folder / str(self._count), self.primary)


class Database:
    """A database of a server, for the queues of one test."""

    def __init__(
        self, server: PostgreSQL, name: str, disk: SmallDisk | None = None
    ) -> None:
        self.server = server
        self.name = name
        self._disk = disk

    @property
    def url(self) -> str:
        return self.server.url_of(self.name)

    def connect(self) -> psycopg.Connection:
        """Return a new connection, which commits each statement."""
        return self.server.connect(self.name)

    def execute(self, statement: str, *parameters: t.Any) -> list[tuple[t.Any, ...]]:
        """Run one statement on a new connection; return the rows, if it has any."""
        return self.server.execute(statement, *parameters, database=self.name)

    def full_disk(self) -> contextlib.AbstractContextManager[None]:
        """Fill the disk of its tables during a block."""
        assert self._disk is not None, "only root may mount a small disk"
        return self._disk.full()

    def terminate_connections(self) -> None:
        """Close all connections to this database, as an operator does."""
        self.server.terminate_connections(self.name)


def _find_programs() -> pathlib.Path | None:
    """Return the folder of the programs, of the newest version that is installed."""
    if (found := shutil.which("postgres")) is not None:
        return pathlib.Path(found).resolve().parent
    folders = [each.parent for each in _DEBIAN.glob("*/bin/postgres")]
    return max(folders, key=lambda folder: float(folder.parent.name), default=None)


def _program(name: str) -> str:
    folder = _find_programs()
    if folder is None:
        raise ServerError(f"{name} is not installed")
    return str(folder / name)


def as_owner() -> list[str]:
    """Return the beginning of a command that runs as the server's user."""
    if not _is_root():
        return []
    capability = "+dac_override"
    return [
        *("setpriv", "--pdeathsig=KILL", "--init-groups"),
        *(f"--reuid={_OWNER}", f"--regid={_OWNER}"),
        *(f"--inh-caps={capability}", f"--ambient-caps={capability}", "--"),
    ]


def _is_root() -> bool:
    return os.geteuid() == 0


def _owner_exists() -> bool:
    names = {each.pw_name for each in pwd.getpwall()}
    return _OWNER in names and shutil.which("setpriv") is not None


def _is_stopped(process: psutil.Process) -> bool:
    return not is_alive(process) or process.status() == psutil.STATUS_STOPPED
