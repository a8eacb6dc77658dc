"""A throwaway Redis with an append-only file, so that it keeps its data."""

from __future__ import annotations

import pathlib
import shutil
import signal
import typing as t

import redis

from .ports import HOST
from .ports import free_port
from .server import Server

DATABASES = 4096

#: A write beyond the kernel's limit must be an error, as on a full disk, and not end
#: the process by a signal.
_IGNORE_FULL = ("sh", "-c", f"trap '' {signal.SIGXFSZ:d}; exec \"$@\"", "sh")


class Redis(Server):
    """A throwaway redis-server; ``options`` are lines of its configuration."""

    title = "Redis"

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        options: t.Mapping[str, str] | None = None,
        environment: t.Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        self._more_environment = dict(environment or {})
        self.port = free_port()
        self.options = {"appendonly": "yes", "save": "", **(options or {})}
        self._used = 0

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("redis-server") else "no redis-server on the PATH"

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def fresh_url(self) -> str:
        """Return the URL of an unused database."""
        self._used = self._used % (DATABASES - 1) + 1
        return f"redis://{HOST}:{self.port}/{self._used}"

    def client(self, url: str = "") -> redis.Redis:
        """Make a client; use it as a context manager, which closes its connection."""
        return redis.Redis.from_url(url or self.url, decode_responses=True)

    def command(self, *args: str | int, url: str = "") -> t.Any:
        """Send one command over a new connection."""
        with self.client(url) as client:
            return client.execute_command(*args)

    def _command(self) -> list[str]:
        fixed = {"port": self.port, "bind": HOST, "dir": ".", "databases": DATABASES}
        lines = [
            f'{name} "{value}"\n' for name, value in {**fixed, **self.options}.items()
        ]
        (self.folder / "redis.conf").write_text("".join(lines))
        return [*_IGNORE_FULL, "redis-server", "redis.conf"]

    def _environment(self) -> dict[str, str]:
        return super()._environment() | self._more_environment

    def _is_ready(self) -> bool:
        try:
            return bool(self.command("PING"))
        except (redis.ConnectionError, redis.TimeoutError):
            return False
