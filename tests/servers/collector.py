"""A throwaway OpenTelemetry Collector with a configuration file of ours.

``tests/stack/get_collector`` builds it.
"""

from __future__ import annotations

import pathlib
import re
import socket
import typing as t

from .ports import HOST
from .ports import free_port
from .server import Server

_BUILDER = pathlib.Path(__file__).parents[1] / "stack" / "collector_builder.yaml"


class Collector(Server):
    """A Collector; ``environment`` has values for the variables of the file."""

    title = "OpenTelemetry Collector"

    def __init__(
        self,
        folder: pathlib.Path,
        configuration: pathlib.Path,
        environment: t.Mapping[str, str],
    ) -> None:
        super().__init__(folder)
        self.otlp = f"{HOST}:{free_port()}"
        self.fluent = f"{HOST}:{free_port()}"
        self._configuration = configuration
        listen = {"OTLP_LISTEN": self.otlp, "FLUENT_LISTEN": self.fluent}
        self._more_environment = {**environment, **listen}

    @classmethod
    def missing(cls) -> str | None:
        here = cls.program().exists()
        return None if here else "tests/stack/get_collector has not built it"

    @classmethod
    def program(cls) -> pathlib.Path:
        (version,) = re.findall(r"otlpreceiver v(\S+)", _BUILDER.read_text("utf-8"))
        cache = pathlib.Path("~/.cache/flask_qconsume").expanduser()
        return cache / f"otelcol-{version}" / "otelcol"

    def _command(self) -> list[str]:
        return [str(self.program()), f"--config={self._configuration}"]

    def _environment(self) -> dict[str, str]:
        return super()._environment() | self._more_environment

    def _is_ready(self) -> bool:
        host, _, port = self.fluent.partition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=1.0):
                return "Everything is ready" in self.output()
        except OSError:
            return False
