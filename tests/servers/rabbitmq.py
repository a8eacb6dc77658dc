"""A RabbitMQ of a test's own: node name, ports, port mapper, cookie and data.

Runs as root and as an ordinary user, beside any other RabbitMQ of the machine. Debian's
``/usr/sbin/rabbitmq-server`` changes to the user of the package, so the script behind
it is run, configured by environment variables only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import typing as t
import urllib.parse
import uuid

from ..waiting import wait_for
from .ports import HOST
from .ports import free_port
from .server import Server
from .server import ServerError
from .server import end
from .server import spawn

_DEBIAN = pathlib.Path("/usr/lib/rabbitmq/bin")
_QUEUE_COLUMNS = ("name", "type", "messages", "messages_ready", "consumers", "state")

#: The user that RabbitMQ notes for changes.
_US = '<<"test">>'

#: More bytes than any disk has.
_EXABYTE = 10**18

# Counts of quorum queues are as old as the last tick; 5 s by default.
_ADVANCED = "[{rabbit, [{quorum_tick_interval, 500}]}].\n"


class RabbitMQ(Server):
    """A throwaway node; ``config`` are lines of its ``rabbitmq.conf``.

    :param management: Whether it has the management plugin, which answers HTTP.
    """

    title = "RabbitMQ"

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        config: t.Mapping[str, str] | None = None,
        management: bool = False,
    ) -> None:
        super().__init__(folder)
        self.port = free_port()
        self._management_port = free_port() if management else None
        self._dist_port = free_port()
        self._epmd_port = free_port()
        self._config = dict(config or {})
        self._node = f"test-{uuid.uuid4().hex[:12]}@localhost"
        self._epmd: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> str | None:
        if _scripts() is None:
            return "no rabbitmq-server on the PATH"
        tools = ("epmd", "erl_call")
        missing = [tool for tool in tools if shutil.which(tool) is None]
        return f"no {missing[0]} on the PATH" if missing else None

    @property
    def url(self) -> str:
        """The URL of the default virtual host; tests should use one of their own."""
        return self._url("%2F")

    @property
    def management_url(self) -> str:
        """The URL of the management plugin."""
        return f"http://guest:guest@{HOST}:{self._management_port}"

    def start(self) -> None:
        self._start_epmd()
        super().start()

    def close(self) -> None:
        try:
            super().close()
        finally:
            epmd, self._epmd = self._epmd, None
            if epmd is not None:
                end(epmd, signal.SIGKILL, timeout=10.0)

    def ctl(self, *args: str, timeout: float = 60.0) -> str:
        """Run ``rabbitmqctl`` against this node and return what it printed."""
        command = [str(_script("rabbitmqctl")), "--quiet", *args]
        done = subprocess.run(
            command,
            env=self._environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if done.returncode:
            said = f"{done.stdout}{done.stderr}".strip()
            raise ServerError(f"rabbitmqctl {' '.join(args)!r} failed: {said}")
        return done.stdout

    def ctl_json(self, *args: str) -> t.Any:
        return json.loads(self.ctl(*args, "--formatter", "json") or "[]")

    def evaluate(self, expression: str, timeout: float = 60.0) -> str:
        """Have the node evaluate Erlang, and return the result as text.

        It takes some milliseconds, where rabbitmqctl starts a virtual machine of its
        own for most of a second.
        """
        address = ["-address", f"localhost:{self._dist_port}"]
        done = subprocess.run(
            ["erl_call", "-R", *address, "-timeout", f"{timeout:.0f}", "-e"],
            env=self._environment(),
            cwd=self.folder,
            input=f"{expression}.\n",
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        said = done.stdout.removeprefix("{ok, ").removesuffix("}")
        if done.returncode or said == done.stdout:
            raise ServerError(f"{expression!r} failed: {done.stdout}{done.stderr}")
        return said

    def add_vhost(self, name: str = "") -> Vhost:
        """Create an empty virtual host; without ``name``, with a random name."""
        name = name or f"test-{uuid.uuid4().hex[:12]}"
        self.evaluate(f"rabbit_vhost:add({_binary(name)}, {_US})")
        self.permit(name)
        return Vhost(self, name)

    def permit(
        self, vhost: str, pattern: str | None = ".*", configure: str | None = None
    ) -> None:
        """Let our user touch what has such a name in a virtual host; all, usually.

        :param pattern: With `None` it may not even connect.
        :param configure: What it may declare and delete, if that is something else.
        """
        user = f'<<"guest">>, {_binary(vhost)}'
        if pattern is None:
            call = f"clear_permissions({user}, {_US})"
        else:
            patterns = [configure or pattern, pattern, pattern]
            call = (
                f"set_permissions({user}, {', '.join(map(_binary, patterns))}, {_US})"
            )
        self.evaluate(f"rabbit_auth_backend_internal:{call}")

    def delete_vhost(self, name: str) -> None:
        self._await_quorum_queues(name)
        self.evaluate(f"rabbit_vhost:delete({_binary(name)}, {_US})")

    def _await_quorum_queues(self, vhost: str) -> None:
        """Wait until its quorum queues have begun: each, and what dead-letters for it.

        RabbitMQ 3.10 may start the latter for a queue that was deleted meanwhile, say
        soon after a restart. It fails twice then, and what supervises all of its kind
        ends for good: no quorum queue that dead-letters can be declared any more.
        """
        queues = f"rabbit_amqqueue:list({_binary(vhost)})"
        self.evaluate(
            "[catch ra:consistent_query(amqqueue:get_pid(Q), fun(_) -> ok end, 30000)"
            f" || Q <- {queues}, amqqueue:get_type(Q) =:= rabbit_quorum_queue]"
        )
        self.evaluate(
            "[catch is_tuple(sys:get_state(P, 30000))"
            " || {_, P, _, _} <- supervisor:which_children(rabbit_fifo_dlx_sup)]"
        )

    @contextlib.contextmanager
    def vhost(self, name: str = "") -> t.Iterator[Vhost]:
        """Create a virtual host for a block, and close its connections at the end."""
        vhost = self.add_vhost(name)
        try:
            yield vhost
        finally:
            if self.running:
                self.delete_vhost(vhost.name)

    @contextlib.contextmanager
    def memory_alarm(self) -> t.Iterator[None]:
        """During a block, block each connection that publishes."""
        self._limit_memory(0)
        try:
            yield
        finally:
            self._limit_memory(0.4)

    @contextlib.contextmanager
    def disk_alarm(self) -> t.Iterator[None]:
        """During a block, block each connection that publishes, as with a full disk."""
        self._limit_disk(f"{_EXABYTE}")
        try:
            yield
        finally:
            self._limit_disk("1MB")

    @contextlib.contextmanager
    def consumer_timeout(self, seconds: float) -> t.Iterator[None]:
        """For the length of a block, close channels that do not acknowledge so long.

        Holds for channels that are opened in it; they look once a second, instead of
        once a minute as they usually do.
        """
        self._set("consumer_timeout", round(seconds * 1000))
        self._set("channel_tick_interval", 1000)
        try:
            yield
        finally:
            self._set("consumer_timeout", 1_800_000)
            self._set("channel_tick_interval", 60_000)

    def _set(self, name: str, value: int) -> None:
        self.evaluate(f"application:set_env(rabbit, {name}, {value})")

    def _limit_memory(self, share: float) -> None:
        self._set_limit(f"vm_memory_monitor:set_vm_memory_high_watermark({share})")

    def _limit_disk(self, size: str) -> None:
        self._set_limit(f'rabbit_disk_monitor:set_disk_free_limit("{size}")')

    def _set_limit(self, call: str) -> None:
        # The monitor tells the alarm's process, which tells the connections. Its answer
        # to a question comes after that.
        self.evaluate(f"{call}, gen_event:which_handlers(rabbit_alarm)")

    def close_all_connections(self, reason: str = "closed by a test") -> None:
        self.ctl("close_all_connections", reason)

    def _url(self, quoted_vhost: str) -> str:
        return f"amqp://guest:guest@{HOST}:{self.port}/{quoted_vhost}"

    def _command(self) -> list[str]:
        self._write_configuration()
        return [str(_script("rabbitmq-server"))]

    def _write_configuration(self) -> None:
        settings = {
            "listeners.tcp.test": f"{HOST}:{self.port}",
            "disk_free_limit.absolute": "1MB",
            **self._management(),
            **self._config,
        }
        lines = [f"{name} = {value}\n" for name, value in settings.items()]
        (self.folder / "rabbitmq.conf").write_text("".join(lines))
        (self.folder / "advanced.config").write_text(_ADVANCED)
        plugins = "rabbitmq_management" if self._management_port else ""
        (self.folder / "enabled_plugins").write_text(f"[{plugins}].\n")

    def _management(self) -> dict[str, str]:
        if self._management_port is None:
            return {}
        return {
            "management.tcp.ip": HOST,
            "management.tcp.port": str(self._management_port),
            # Milliseconds that figures may be old.
            "collect_statistics_interval": "500",
        }

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RABBITMQ_", "ERL_"))
        }
        return inherited | {
            "HOME": folder,  # of the cookie
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1}"
            ),
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/rabbitmq-env.conf",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_FEATURE_FLAGS_FILE": f"{folder}/feature_flags",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            # The script becomes the node instead of waiting for it, so that a kill hits
            # the broker.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _start_epmd(self) -> None:
        # The node does not start a port mapper of its own if one runs. Its own would
        # outlive it.
        if self._epmd is not None and self._epmd.poll() is None:
            return
        command = ["epmd", "-address", HOST, "-port", str(self._epmd_port)]
        self._epmd = spawn(
            command,
            env=self._environment(),
            folder=self.folder,
            output=self.folder / "epmd-output",
        )
        wait_for(lambda: _accepts(self._epmd_port), 10.0, message="epmd is up")

    def _is_ready(self) -> bool:
        return _speaks_amqp(self.port)


@dataclasses.dataclass(frozen=True, slots=True)
class Vhost:
    """A virtual host of a node, for the queues of one test."""

    server: RabbitMQ
    name: str

    @property
    def url(self) -> str:
        return self.server._url(_quoted(self.name))

    def queues(self) -> dict[str, dict[str, t.Any]]:
        """By name, what ``list_queues`` says; counts of quorum queues lag by 0.5 s."""
        rows = self.server.ctl_json(
            "list_queues", "--vhost", self.name, *_QUEUE_COLUMNS
        )
        return {row["name"]: row for row in rows}

    def delete_queue(self, name: str) -> None:
        self.server.ctl("delete_queue", "--vhost", self.name, name)

    def delete_exchange(self, name: str) -> None:
        # rabbitmqctl has no command for this.
        resource = f"rabbit_misc:r({_binary(self.name)}, exchange, {_binary(name)})"
        self.server.evaluate(f"rabbit_exchange:delete({resource}, false, {_US})")

    @contextlib.contextmanager
    def permissions(self, pattern: str | None) -> t.Iterator[None]:
        """For the length of a block, let us touch only what has a name like that.

        With `None` we may not even connect.
        """
        self.server.permit(self.name, pattern)
        try:
            yield
        finally:
            self.server.permit(self.name)

    def close_connections(self, reason: str = "closed by a test") -> None:
        """Close each connection to this virtual host, as an operator does."""
        self.server.ctl("close_all_connections", "--vhost", self.name, reason)


def _scripts() -> pathlib.Path | None:
    """Return the folder of the scripts that do not change the user."""
    if (_DEBIAN / "rabbitmq-server").exists():
        return _DEBIAN
    found = shutil.which("rabbitmq-server")
    return pathlib.Path(found).resolve().parent if found else None


def _script(name: str) -> pathlib.Path:
    folder = _scripts()
    if folder is None:
        raise ServerError(f"{name} is not installed")
    return folder / name


def _binary(text: str) -> str:
    """Return a text as an Erlang binary."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'<<"{escaped}">>'


def _quoted(vhost: str) -> str:
    return urllib.parse.quote(vhost, safe="")


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=5).close()
    except OSError:
        return False
    return True


def _speaks_amqp(port: int) -> bool:
    """Return whether the broker answers a protocol header, not only listens."""
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False
